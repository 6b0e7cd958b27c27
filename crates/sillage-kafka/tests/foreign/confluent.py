"""confluent-kafka with the CloudEvents SDK.

    confluent.py read SERVER TOPIC COUNT             prints each event as a line of JSON
    confluent.py write SERVER TOPIC binary|structured   publishes each line of JSON as an event
"""

import json
import sys
import time
import uuid

from cloudevents.core.bindings import kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, Producer
from dateutil.parser import isoparse

PATIENCE = 60  # seconds: longer than anything takes


def read(server, topic, count):
    group = f"confluent-{uuid.uuid4()}"
    settings = {"bootstrap.servers": server, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    end = time.monotonic() + PATIENCE
    while count > 0:
        if time.monotonic() > end:
            sys.exit(f"{count} records have not come")
        record = consumer.poll(1)
        if record is None:
            continue
        if record.error():
            sys.exit(str(record.error()))
        print(json.dumps(seen(record)), flush=True)
        count -= 1
    consumer.close()


def seen(record):
    """What the SDK makes of a record; it raises an error for one that is no valid CloudEvent."""
    headers = dict(record.headers() or [])
    message = kafka.KafkaMessage(headers=headers, key=record.key(), value=record.value())
    event = kafka.from_kafka(message, JSONFormat(), CloudEvent)
    attributes = dict(event.get_attributes())
    attributes["time"] = event.get_time().isoformat()
    return {
        "attributes": attributes,
        "data": event.get_data(),
        "key": record.key().decode(),
        "headers": {name: value.decode() for name, value in headers.items()},
    }


def write(server, topic, mode):
    producer = Producer({"bootstrap.servers": server})
    failed = []
    convert = {"binary": kafka.to_binary, "structured": kafka.to_structured}[mode]
    for line in sys.stdin:
        attributes = json.loads(line)
        data = attributes.pop("data")
        attributes["time"] = isoparse(attributes["time"])
        message = convert(CloudEvent(attributes, data), JSONFormat())
        producer.produce(
            topic,
            key=message.key,
            value=message.value,
            headers=list(message.headers.items()),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    left = producer.flush(PATIENCE)
    if left or failed:
        sys.exit(f"{left} records were not published: {failed}")


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        write(*sys.argv[2:])
