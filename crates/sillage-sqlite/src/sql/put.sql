INSERT INTO documents (collection, id, version, sort, body) VALUES (?1, ?2, 1, ?3, ?4)
ON CONFLICT (collection, id) DO UPDATE SET
    version = version + 1, sort = excluded.sort, body = excluded.body
