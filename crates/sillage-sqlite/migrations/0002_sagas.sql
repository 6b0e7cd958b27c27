-- Instances of sagas, for people. `step`, `progress` and `because` are what happened last.

CREATE VIEW sagas AS
WITH instance AS (
    SELECT
        id,
        version,
        CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) ELSE '{}' END AS body
    FROM documents
    WHERE collection = 'sagas'
)
SELECT
    id,
    json_extract(body, '$.process') AS saga,
    json_extract(body, '$.version') AS definition,
    json_extract(body, '$.key') AS key,
    json_extract(body, '$.status') AS status,
    json_extract(body, '$.memory.why') AS why,
    json_extract(body, '$.memory.history[#-1].step') AS step,
    json_extract(body, '$.memory.history[#-1].progress') AS progress,
    json_extract(body, '$.memory.history[#-1].because') AS because,
    json_extract(body, '$.started') AS started,
    json_extract(body, '$.updated') AS updated,
    json_extract(body, '$.correlation_id') AS correlation_id,
    json_extract(body, '$.memory.data') AS memory,
    version
FROM instance;
