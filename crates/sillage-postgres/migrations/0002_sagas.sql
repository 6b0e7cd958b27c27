-- Instances of sagas, for people. `step`, `progress` and `because` are what happened last.

CREATE VIEW "sillage".sagas AS
WITH instance AS (
    SELECT id, version, "sillage".as_json(body) AS body
    FROM "sillage".documents
    WHERE collection = 'sagas'
)
SELECT
    id,
    body ->> 'process' AS saga,
    (body ->> 'version')::bigint AS definition,
    body ->> 'key' AS key,
    body ->> 'status' AS status,
    body #>> '{memory,why}' AS why,
    body #>> '{memory,history,-1,step}' AS step,
    body #>> '{memory,history,-1,progress}' AS progress,
    body #>> '{memory,history,-1,because}' AS because,
    body ->> 'started' AS started,
    body ->> 'updated' AS updated,
    body ->> 'correlation_id' AS correlation_id,
    body #> '{memory,data}' AS memory,
    version
FROM instance;
