-- The files of W&B Tables in artifacts whose content is here, by the addresses that values of tables have. `source` names
-- their Parquet: the digest, or of joined and partitioned tables the place of the file.
CREATE OR REPLACE VIEW store.artifact_tables AS
WITH held AS (
    SELECT a.artifact_id, n.name, n.digest,
           CASE WHEN n.name GLOB '*.table.json' THEN n.digest ELSE 'artifact/' || a.aid || '/' || n.name END AS source
    FROM store.content_names AS n
    JOIN store.artifact_records AS a ON a.aid = n.owner
    WHERE n.kind = 'artifact' AND n.digest IS NOT NULL AND (
        n.name GLOB '*.table.json' OR n.name GLOB '*.joined-table.json' OR n.name GLOB '*.partitioned-table.json'
    )
)
SELECT 'wandb-client-artifact://' || c.client_id || '/' || h.name AS address, any_value(h.digest) AS digest, min(h.source) AS source
FROM held AS h
JOIN store.artifact_clients AS c ON c.artifact_id = h.artifact_id
GROUP BY ALL
UNION ALL
-- The server's id, which is Base64, in hexadecimal.
SELECT 'wandb-artifact://' || lower(hex(from_base64(artifact_id))) || '/' || name, any_value(digest), min(source)
FROM held
WHERE regexp_full_match(artifact_id, '([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?')
GROUP BY ALL;
