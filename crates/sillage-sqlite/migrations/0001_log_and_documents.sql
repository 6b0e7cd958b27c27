-- The schema's version, the log's incarnation, and counters.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('schema', 0), ('trimmed_before', 0);

CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL
);

-- AUTOINCREMENT: a position is never given out twice, also after the log was trimmed.
CREATE TABLE log (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    topic TEXT,
    key BLOB,
    stream_id INTEGER,
    stream_version INTEGER,
    time INTEGER NOT NULL, -- microseconds since 1970
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    operation_id TEXT,
    traceparent TEXT,
    headers BLOB,
    payload BLOB NOT NULL
);

-- By id first: ids differ early, sources share their beginnings.
CREATE UNIQUE INDEX log_id ON log (id, source);

CREATE UNIQUE INDEX log_stream ON log (stream_id, stream_version) WHERE stream_id IS NOT NULL;

CREATE INDEX log_correlation ON log (correlation_id);

CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    decision TEXT NOT NULL, -- done, parked, skipped, replaced
    partition TEXT, -- with offset: where the row may be forgotten
    offset INTEGER,
    at INTEGER NOT NULL, -- microseconds since 1970
    PRIMARY KEY (consumer, source, id)
) WITHOUT ROWID;

CREATE INDEX inbox_offset ON inbox (consumer, partition, offset) WHERE partition IS NOT NULL;

CREATE TABLE documents (
    collection TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    sort TEXT,
    body BLOB NOT NULL,
    PRIMARY KEY (collection, id)
);

CREATE INDEX documents_sort ON documents (collection, sort, id) WHERE sort IS NOT NULL;

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    until INTEGER NOT NULL -- microseconds since 1970; 0: given back
) WITHOUT ROWID;

-- Views, for people and for reading.

CREATE VIEW entries AS
SELECT
    log.position,
    streams.name AS stream,
    log.stream_version,
    log.source,
    log.id,
    log.name,
    log.version,
    log.topic,
    log.key,
    log.time,
    log.correlation_id,
    log.causation_id,
    log.operation_id,
    log.traceparent,
    log.headers,
    log.payload
FROM log
LEFT JOIN streams ON streams.id = log.stream_id;

-- A body that is not JSON shows as empty fields, instead of failing the whole view.
CREATE VIEW parked_keys AS
WITH parked AS (
    SELECT
        id,
        version,
        CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) ELSE '{}' END AS body
    FROM documents
    WHERE collection = 'parked_keys'
)
SELECT
    id,
    json_extract(body, '$.consumer') AS consumer,
    json_extract(body, '$.topic') AS topic,
    json_extract(body, '$.key') AS key,
    json_extract(body, '$.partition') AS partition,
    json_extract(body, '$.head') AS head,
    json_extract(body, '$.tail') AS tail,
    coalesce(json_extract(body, '$.dead'), 0) AS dead,
    json_extract(body, '$.attempts') AS attempts,
    json_extract(body, '$.next_try') AS next_try,
    json_extract(body, '$.class') AS class,
    json_extract(body, '$.failure') AS failure,
    json_extract(body, '$.first_failed_at') AS first_failed_at,
    json_extract(body, '$.last_failed_at') AS last_failed_at,
    json_extract(body, '$.redrives') AS redrives,
    version
FROM parked;

CREATE VIEW dead_letters AS
SELECT
    id, consumer, topic, key, partition, head, tail, attempts, class, failure,
    first_failed_at, last_failed_at, redrives, version
FROM parked_keys
WHERE dead;

CREATE VIEW timers AS
WITH timer AS (
    SELECT
        id,
        sort,
        CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) ELSE '{}' END AS body
    FROM documents
    WHERE collection = 'timers'
)
SELECT
    sort AS due,
    id,
    json_extract(body, '$.token') AS token,
    json_extract(body, '$.message.type') AS name,
    json_extract(body, '$.message.source') AS source,
    json_extract(body, '$.message.topic') AS topic,
    json_extract(body, '$.message.partitionkey') AS key,
    json_extract(body, '$.message.correlationid') AS correlation_id
FROM timer;

CREATE VIEW checkpoints AS
WITH checkpoint AS (
    SELECT
        id,
        version,
        CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) ELSE '{}' END AS body
    FROM documents
    WHERE collection = 'checkpoints'
)
SELECT id AS reader, json_extract(body, '$.position') AS position, version
FROM checkpoint;
