-- The schema's version, the log's incarnation, and where the database came from.
CREATE TABLE "sillage".meta (
    key text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

INSERT INTO "sillage".meta (key, value)
VALUES ('schema', '0'), ('trimmed_before', '0'), ('incarnation', ''), ('origin', '');

-- CACHE 1: a session that keeps numbers for later would write below what readers have passed.
CREATE SEQUENCE "sillage".log_position CACHE 1;

-- Rows have room for their next version, so that most updates touch no index.
CREATE TABLE "sillage".streams (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE "sillage".log (
    position bigint PRIMARY KEY DEFAULT nextval('"sillage".log_position'),
    stream text COLLATE "C",
    stream_version bigint,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    topic text COLLATE "C",
    key bytea,
    time bigint NOT NULL, -- microseconds since 1970
    correlation_id text COLLATE "C" NOT NULL,
    causation_id text COLLATE "C",
    operation_id text COLLATE "C",
    traceparent text COLLATE "C",
    headers bytea,
    payload bytea NOT NULL
);

-- By id first: ids differ early, sources share their beginnings.
CREATE UNIQUE INDEX log_id ON "sillage".log (id, source);

CREATE UNIQUE INDEX log_stream ON "sillage".log (stream, stream_version) WHERE stream IS NOT NULL;

CREATE INDEX log_correlation ON "sillage".log (correlation_id, position);

CREATE TABLE "sillage".inbox (
    consumer text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    decision text COLLATE "C" NOT NULL, -- done, parked, skipped, replaced; empty: just claimed
    partition text COLLATE "C", -- with offset: where the row may be forgotten
    "offset" bigint,
    at bigint NOT NULL, -- microseconds since 1970
    PRIMARY KEY (consumer, id, source)
);

CREATE INDEX inbox_offset ON "sillage".inbox (consumer, partition, "offset")
    WHERE partition IS NOT NULL;

CREATE TABLE "sillage".documents (
    collection text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL, -- 0: just claimed
    sort text COLLATE "C",
    body bytea NOT NULL,
    PRIMARY KEY (collection, id)
) WITH (fillfactor = 70);

-- The beginning of a sort key: a whole one may be longer than an index takes.
CREATE INDEX documents_sort ON "sillage".documents (collection, left(sort, 256) COLLATE "C")
    WHERE sort IS NOT NULL;

CREATE TABLE "sillage".leases (
    name text COLLATE "C" PRIMARY KEY,
    owner uuid NOT NULL,
    epoch bigint NOT NULL,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A body as JSON; one that is none is empty fields, instead of failing a whole view.
CREATE FUNCTION "sillage".as_json(body bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN '{}'::jsonb;
END
$$;

-- Views, for people.

CREATE VIEW "sillage".entries AS
SELECT
    position,
    stream,
    stream_version,
    source,
    id,
    name,
    version,
    topic,
    key,
    to_timestamp(time / 1000000.0) AS time,
    correlation_id,
    causation_id,
    operation_id,
    traceparent,
    headers,
    "sillage".as_json(payload) AS payload
FROM "sillage".log;

CREATE VIEW "sillage".parked_keys AS
WITH parked AS (
    SELECT id, version, "sillage".as_json(body) AS body
    FROM "sillage".documents
    WHERE collection = 'parked_keys'
)
SELECT
    id,
    body ->> 'consumer' AS consumer,
    body ->> 'topic' AS topic,
    body ->> 'key' AS key,
    body ->> 'partition' AS partition,
    body ->> 'head' AS head,
    body ->> 'tail' AS tail,
    coalesce(body -> 'dead', 'false') = 'true' AS dead,
    body ->> 'attempts' AS attempts,
    body ->> 'next_try' AS next_try,
    body ->> 'class' AS class,
    body ->> 'failure' AS failure,
    body ->> 'first_failed_at' AS first_failed_at,
    body ->> 'last_failed_at' AS last_failed_at,
    body ->> 'redrives' AS redrives,
    version
FROM parked;

CREATE VIEW "sillage".dead_letters AS
SELECT
    id, consumer, topic, key, partition, head, tail, attempts, class, failure,
    first_failed_at, last_failed_at, redrives, version
FROM "sillage".parked_keys
WHERE dead;

CREATE VIEW "sillage".timers AS
WITH timer AS (
    SELECT id, sort, "sillage".as_json(body) AS body
    FROM "sillage".documents
    WHERE collection = 'timers'
)
SELECT
    sort AS due,
    id,
    body ->> 'token' AS token,
    body -> 'message' ->> 'type' AS name,
    body -> 'message' ->> 'source' AS source,
    body -> 'message' ->> 'topic' AS topic,
    body -> 'message' ->> 'partitionkey' AS key,
    body -> 'message' ->> 'correlationid' AS correlation_id
FROM timer;

CREATE VIEW "sillage".checkpoints AS
SELECT id AS reader, ("sillage".as_json(body) ->> 'position')::bigint AS position, version
FROM "sillage".documents
WHERE collection = 'checkpoints';
