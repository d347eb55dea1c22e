-- What takes space, by run, kind and type. Of content that several names have, only the first name counts as stored.
CREATE OR REPLACE VIEW main.storage AS
WITH run_files AS (
    SELECT r.entity, r.project, r.run_id, f.name, f.size, n.digest, n.size AS mirrored,
           CASE
               WHEN n.name GLOB '*.joined-table.json' OR n.name GLOB '*.partitioned-table.json'
               THEN 'file/' || n.owner || '/' || n.name
               ELSE n.digest
           END AS source
    FROM store.run_files AS f
    JOIN store.run_records AS r ON r.rid = f.rid
    LEFT JOIN store.content_names AS n ON n.kind = 'file' AND n.owner = f.rid AND n.name = f.name
),
artifact_tables AS (
    SELECT n.owner, n.name,
           CASE
               WHEN n.name GLOB '*.joined-table.json' OR n.name GLOB '*.partitioned-table.json'
               THEN 'artifact/' || n.owner || '/' || n.name
               ELSE n.digest
           END AS source
    FROM store.content_names AS n
    WHERE n.kind = 'artifact' AND n.digest IS NOT NULL AND n.name GLOB '*table.json'
),
contents AS (
    SELECT entity, project, run_id, 'file' AS kind,
           CASE
               WHEN name LIKE 'media/_%/_%' THEN 'media/' || split_part(name, '/', 2)
               ELSE coalesce(nullif(lower(regexp_extract(name, '\.[^./]+$')), ''), 'other')
           END AS type,
           NULL AS artifact, name, size AS on_server, digest, mirrored
    FROM run_files
    UNION ALL
    SELECT a.entity, a.project, CASE WHEN a.run_entity = a.entity AND a.run_project = a.project THEN a.run_id END,
           'artifact', a.type, a.collection || ':v' || a.version_number, e.path,
           CASE WHEN e.reference IS NULL THEN e.size END, n.digest, n.size
    FROM store.artifact_entries AS e
    JOIN store.artifact_records AS a ON a.aid = e.aid
    LEFT JOIN store.content_names AS n ON n.kind = 'artifact' AND n.owner = e.aid AND n.name = e.path
    UNION ALL
    SELECT f.entity, f.project, f.run_id, 'table', 'parquet', NULL, f.name, NULL, p.digest, p.size
    FROM run_files AS f
    JOIN store.content_names AS p ON p.kind = 'table' AND p.name = f.source
    WHERE p.digest IS NOT NULL
    UNION ALL
    SELECT a.entity, a.project, CASE WHEN a.run_entity = a.entity AND a.run_project = a.project THEN a.run_id END,
           'table', 'parquet', a.collection || ':v' || a.version_number, t.name, NULL, p.digest, p.size
    FROM artifact_tables AS t
    JOIN store.artifact_records AS a ON a.aid = t.owner
    JOIN store.content_names AS p ON p.kind = 'table' AND p.name = t.source
    WHERE p.digest IS NOT NULL
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY digest ORDER BY kind DESC, entity, project, run_id, artifact, name) AS place
    FROM contents
),
segments AS (
    SELECT segment_id, entity, project, bytes, value_count FROM store.segments WHERE retired_at IS NULL
)
SELECT entity, project, run_id, kind, type, artifact, count(*) AS files,
       sum(on_server)::BIGINT AS server_bytes,
       coalesce(sum(mirrored), 0)::BIGINT AS mirrored_bytes,
       coalesce(sum(mirrored) FILTER (place = 1), 0)::BIGINT AS stored_bytes,
       entity || '/' || project || '/' || run_id AS run_path
FROM ranked
GROUP BY entity, project, run_id, kind, type, artifact
UNION ALL
-- A run has that share of a segment's bytes that it has of its values.
SELECT s.entity, s.project, g.run_id, 'history', 'segments', NULL, count(*), NULL,
       round(sum(s.bytes * g.value_count / greatest(s.value_count, 1)))::BIGINT,
       round(sum(s.bytes * g.value_count / greatest(s.value_count, 1)))::BIGINT,
       s.entity || '/' || s.project || '/' || g.run_id
FROM store.segment_runs AS g
JOIN segments AS s ON s.segment_id = g.segment_id
WHERE NOT g.replaced
GROUP BY s.entity, s.project, g.run_id;
