"""pika, with the CloudEvents SDK where events are to be valid ones.

    amqp.py read URL EXCHANGE BINDING COUNT
        prints {"bound": true}, then each delivery, as a line of JSON
    amqp.py write URL EXCHANGE
        publishes each line: routing_key, properties, headers, body
    amqp.py sdk URL EXCHANGE ROUTING_KEY amqp|rabbitmq|structured
        publishes each line as an event, by the SDK's binding for AMQP or for RabbitMQ
"""

import json
import sys

import pika
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse

PATIENCE = 60  # seconds: longer than anything takes


def read(channel, exchange, binding, count):
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, routing_key=binding)
    print(json.dumps({"bound": True}), flush=True)
    left = int(count)
    for method, properties, body in channel.consume(queue, inactivity_timeout=PATIENCE):
        if method is None:
            sys.exit(f"{left} messages have not come")
        print(json.dumps(seen(method, properties, body)), flush=True)
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if left == 0:
            break
    channel.cancel()


def seen(method, properties, body):
    """What there is; the SDK raises an error for a message that is no valid CloudEvent."""
    content_type = {"content-type": properties.content_type}
    message = amqp.AMQPMessage(content_type, properties.headers, body)
    event = amqp.from_amqp(message, JSONFormat(), CloudEvent)
    attributes = dict(event.get_attributes())
    attributes["time"] = event.get_time().isoformat()
    names = ["content_type", "delivery_mode", "message_id", "type", "app_id", "correlation_id"]
    names.append("timestamp")
    return {
        "routing_key": method.routing_key,
        "properties": {name: getattr(properties, name) for name in names},
        "headers": properties.headers,
        "attributes": attributes,
        "data": event.get_data(),
    }


def write(channel, exchange):
    for line in sys.stdin:
        message = json.loads(line)
        properties = pika.BasicProperties(headers=message["headers"], **message["properties"])
        publish(channel, exchange, message["routing_key"], json.dumps(message["body"]), properties)


def sdk(channel, exchange, routing_key, mode):
    for line in sys.stdin:
        attributes = json.loads(line)
        data = attributes.pop("data")
        attributes["time"] = isoparse(attributes["time"])
        content_type, headers, body = written(CloudEvent(attributes, data), mode)
        properties = pika.BasicProperties(content_type=content_type, headers=headers)
        publish(channel, exchange, routing_key, body, properties)


def written(event, mode):
    """Content type, headers and body."""
    if mode == "rabbitmq":
        message = rabbitmq.to_binary(event, JSONFormat())
        return message.content_type, message.headers, message.body
    convert = {"amqp": amqp.to_binary, "structured": amqp.to_structured}[mode]
    message = convert(event, JSONFormat())
    content_type = message.properties["content-type"]
    return content_type, message.application_properties, message.application_data


def publish(channel, exchange, routing_key, body, properties):
    """Raises an error unless the message reached a queue and the server has confirmed it."""
    channel.basic_publish(exchange, routing_key, body, properties, mandatory=True)


def main(command, url, *rest):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    {"read": read, "write": write, "sdk": sdk}[command](channel, *rest)
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
