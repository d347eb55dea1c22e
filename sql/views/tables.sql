-- W&B Tables that were logged in history or are in the summary, with what their files hold where these are here.
CREATE OR REPLACE VIEW main.tables AS
WITH logged AS (
    SELECT entity, project, run_id, step, key, TRY_CAST(text AS JSON) AS doc
    FROM main.history
    WHERE text IS NOT NULL AND (contains(text, 'table-file"') OR contains(text, '-table"'))
),
-- The members of objects in summaries lie as leaves below the key of the object.
typed AS (
    SELECT rid, substr(key, 1, length(key) - 6) AS key, text AS type
    FROM store.leaves
    WHERE doc = 'summary' AND element IS NULL AND ends_with(key, '._type')
    AND text IN ('table-file', 'incremental-table-file', 'joined-table', 'partitioned-table')
),
members AS (
    SELECT t.rid, t.key, t.type, substr(l.key, length(t.key) + 2) AS member, l.text, l.number
    FROM typed AS t
    JOIN store.leaves AS l ON l.rid = t.rid AND l.doc = 'summary' AND l.element IS NULL AND l.key IN (
        t.key || '.path', t.key || '.artifact_path', t.key || '.sha256', t.key || '.ncols', t.key || '.nrows'
    )
),
summarised AS (
    SELECT rid, key, json_object(
        '_type', any_value(type),
        'path', max(text) FILTER (member = 'path'),
        'artifact_path', max(text) FILTER (member = 'artifact_path'),
        'sha256', max(text) FILTER (member = 'sha256'),
        'ncols', max(number) FILTER (member = 'ncols'),
        'nrows', max(number) FILTER (member = 'nrows')
    ) AS doc
    FROM members
    GROUP BY rid, key
    UNION ALL
    SELECT rid, key, TRY_CAST(text AS JSON) FROM store.leaves
    WHERE doc = 'summary' AND kind = 'list' AND element IS NULL
    AND (contains(text, 'table-file"') OR contains(text, '-table"'))
),
parts AS (
    SELECT entity, project, run_id, step, key, doc AS part FROM logged WHERE json_type(doc) = 'OBJECT'
    UNION ALL
    SELECT entity, project, run_id, step, key, unnest(json_extract(doc, '$[*]'))
    FROM logged WHERE json_type(doc) = 'ARRAY'
    UNION ALL
    SELECT r.entity, r.project, r.run_id, NULL, s.key, s.part
    FROM (
        SELECT rid, key, doc AS part FROM summarised WHERE json_type(doc) = 'OBJECT'
        UNION ALL
        SELECT rid, key, unnest(json_extract(doc, '$[*]')) FROM summarised WHERE json_type(doc) = 'ARRAY'
    ) AS s
    JOIN store.run_records AS r ON r.rid = s.rid
),
described AS (
    SELECT p.entity, p.project, p.run_id, r.rid, p.key, p.step, json_extract_string(part, '$._type') AS type,
           coalesce(json_extract_string(part, '$.path'), json_extract_string(part, '$.artifact_path')) AS path,
           json_extract_string(part, '$.artifact_path') AS address,
           lower(json_extract_string(part, '$.sha256')) AS sha256,
           TRY_CAST(TRY_CAST(json_extract_string(part, '$.nrows') AS DOUBLE) AS BIGINT) AS nrows
    FROM parts AS p
    JOIN store.run_records AS r ON r.entity = p.entity AND r.project = p.project AND r.run_id = p.run_id
    WHERE json_extract_string(part, '$._type')
        IN ('table-file', 'incremental-table-file', 'joined-table', 'partitioned-table')
)
SELECT d.entity, d.project, d.run_id, d.key, d.step, d.type, t.columns,
       coalesce(t.rows, d.nrows) AS rows,
       d.nrows AS logged_rows, d.path, coalesce(a.digest, n.digest, d.sha256) AS digest,
       (SELECT value FROM store.meta WHERE key = 'blobs') || substr(c.digest, 1, 2) || '/' || substr(c.digest, 3) AS local_path,
       (SELECT value FROM store.meta WHERE key = 'blobs') || substr(p.digest, 1, 2) || '/' || substr(p.digest, 3) AS parquet_path,
       coalesce(t.error, n.error) AS error,
       d.entity || '/' || d.project || '/' || d.run_id AS run_path
FROM described AS d
LEFT JOIN store.content_names AS n ON n.kind = 'file' AND n.owner = d.rid AND n.name = d.path
-- The file in the artifact has all rows, and media as objects; that of the run has the first rows, and names of classes.
LEFT JOIN store.artifact_tables AS a ON a.address = d.address AND d.type <> 'incremental-table-file'
LEFT JOIN store.contents AS c ON c.digest = coalesce(a.digest, n.digest, d.sha256) AND c.unnamed_at IS NULL
LEFT JOIN store.converted_tables AS t ON t.source = CASE
    WHEN d.type NOT IN ('joined-table', 'partitioned-table') THEN c.digest
    ELSE coalesce(a.source, 'file/' || d.rid || '/' || d.path)
END
LEFT JOIN store.content_names AS p ON p.kind = 'table' AND p.name = t.source;
