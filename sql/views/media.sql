-- Media are JSON objects with a `_type`, logged in history or kept in the summary: one with a path, a list of files of
-- one type under `filenames` or under the name of the type, or a plain list of such objects. Each file is one row.
CREATE OR REPLACE VIEW main.media AS
WITH logged AS (
    SELECT entity, project, run_id, step, key, TRY_CAST(text AS JSON) AS doc
    FROM main.history
    WHERE text IS NOT NULL AND contains(text, '"_type"')
),
-- The members of objects in summaries lie as leaves below the key of the object.
members AS (
    SELECT rid, substr(key, 1, length(key) - length(last) - 1) AS key, last, text
    FROM (
        SELECT rid, key, text, split_part(key, '.', -1) AS last
        FROM store.leaves WHERE doc = 'summary' AND element IS NULL AND text IS NOT NULL AND contains(key, '.')
    )
    WHERE last IN (
        '_type', 'path', 'artifact_path', 'sha256', 'caption', 'captions', 'width', 'height', 'filenames', 'videos',
        'audio', 'html', 'objects', 'plotly'
    )
),
objects AS (
    SELECT rid, key,
           json_object(
               '_type', max(text) FILTER (last = '_type'),
               'path', max(text) FILTER (last = 'path'),
               'artifact_path', max(text) FILTER (last = 'artifact_path'),
               'sha256', max(text) FILTER (last = 'sha256'),
               'caption', max(text) FILTER (last = 'caption'),
               'captions', TRY_CAST(max(text) FILTER (last = 'captions') AS JSON),
               'width', max(text) FILTER (last = 'width'),
               'height', max(text) FILTER (last = 'height'),
               'filenames', TRY_CAST(max(text) FILTER (last = 'filenames') AS JSON),
               'videos', TRY_CAST(max(text) FILTER (last = 'videos') AS JSON),
               'audio', TRY_CAST(max(text) FILTER (last = 'audio') AS JSON),
               'html', TRY_CAST(max(text) FILTER (last = 'html') AS JSON),
               'objects', TRY_CAST(max(text) FILTER (last = 'objects') AS JSON),
               'plotly', TRY_CAST(max(text) FILTER (last = 'plotly') AS JSON)
           ) AS doc
    FROM members
    GROUP BY rid, key
    HAVING count(*) FILTER (last = '_type') > 0
),
summarised AS (
    SELECT rid, key, doc FROM objects
    UNION ALL
    SELECT l.rid, l.key, TRY_CAST(l.text AS JSON)
    FROM store.leaves AS l
    WHERE l.doc = 'summary' AND l.kind = 'list' AND l.element IS NULL AND contains(l.text, '"_type"')
    AND NOT EXISTS (
        SELECT 1 FROM objects AS o WHERE o.rid = l.rid AND starts_with(l.key, o.key || '.')
    )
),
-- `part` is one object with its place in a plain list.
parts AS (
    SELECT entity, project, run_id, step, key, 0 AS item, doc AS part FROM logged WHERE json_type(doc) = 'OBJECT'
    UNION ALL
    SELECT entity, project, run_id, step, key, unnest(range(json_array_length(doc)::BIGINT)),
           unnest(json_extract(doc, '$[*]'))
    FROM logged WHERE json_type(doc) = 'ARRAY'
    UNION ALL
    SELECT r.entity, r.project, r.run_id, NULL, s.key, s.item, s.part
    FROM (
        SELECT rid, key, 0 AS item, doc AS part FROM summarised WHERE json_type(doc) = 'OBJECT'
        UNION ALL
        SELECT rid, key, unnest(range(json_array_length(doc)::BIGINT)), unnest(json_extract(doc, '$[*]'))
        FROM summarised WHERE json_type(doc) = 'ARRAY'
    ) AS s
    JOIN store.run_records AS r ON r.rid = s.rid
),
typed AS (
    SELECT entity, project, run_id, step, key, item, part, json_extract_string(part, '$._type') AS kind,
           -- Lists of files: plain names with what they share, or whole objects.
           CASE json_extract_string(part, '$._type')
               WHEN 'images/separated' THEN json_extract(part, '$.filenames[*]')
               WHEN 'molecule' THEN json_extract(part, '$.filenames[*]')
               WHEN 'videos' THEN json_extract(part, '$.videos[*]')
               WHEN 'audio' THEN json_extract(part, '$.audio[*]')
               WHEN 'html' THEN json_extract(part, '$.html[*]')
               WHEN 'object3D' THEN json_extract(part, '$.objects[*]')
               WHEN 'plotly' THEN json_extract(part, '$.plotly[*]')
           END AS listed
    FROM parts
),
single AS (
    SELECT entity, project, run_id, step, key, item, kind AS type, part AS file, part AS shared, NULL AS place
    FROM typed WHERE listed IS NULL
    UNION ALL
    SELECT entity, project, run_id, step, key, place, type, file, part AS shared, place
    FROM (
        SELECT entity, project, run_id, step, key, part,
               CASE kind WHEN 'images/separated' THEN 'image-file' WHEN 'molecule' THEN 'molecule-file' END AS type,
               unnest(listed) AS file, unnest(range(len(listed)::BIGINT)) AS place
        FROM typed WHERE listed IS NOT NULL
    )
),
described AS (
    SELECT entity, project, run_id, step, key, item, coalesce(type, json_extract_string(file, '$._type')) AS type,
           CASE json_type(file)
               WHEN 'VARCHAR' THEN json_extract_string(file, '$')
               ELSE coalesce(json_extract_string(file, '$.path'), json_extract_string(file, '$.artifact_path'))
           END AS path,
           coalesce(
               json_extract_string(file, '$.caption'),
               CASE json_type(shared, '$.captions')
                   WHEN 'ARRAY' THEN json_extract_string(shared, '$.captions[*]')[place + 1]
               END
           ) AS caption,
           TRY_CAST(coalesce(json_extract_string(file, '$.width'), json_extract_string(shared, '$.width')) AS BIGINT)
               AS width,
           TRY_CAST(coalesce(json_extract_string(file, '$.height'), json_extract_string(shared, '$.height')) AS BIGINT)
               AS height,
           lower(json_extract_string(file, '$.sha256')) AS sha256
    FROM single
),
held AS (
    SELECT r.entity, r.project, r.run_id, n.name, n.digest
    FROM store.content_names AS n JOIN store.run_records AS r ON r.rid = n.owner
    WHERE n.kind = 'file' AND n.digest IS NOT NULL
)
SELECT d.entity, d.project, d.run_id, d.key, d.step, d.item, d.type, d.caption, d.width, d.height, d.path,
       coalesce(h.digest, d.sha256) AS digest,
       (SELECT value FROM store.meta WHERE key = 'blobs') || substr(c.digest, 1, 2) || '/' || substr(c.digest, 3) AS local_path,
       d.entity || '/' || d.project || '/' || d.run_id AS run_path
FROM described AS d
LEFT JOIN held AS h ON h.entity = d.entity AND h.project = d.project AND h.run_id = d.run_id AND h.name = d.path
LEFT JOIN store.contents AS c ON c.digest = coalesce(h.digest, d.sha256) AND c.unnamed_at IS NULL
WHERE d.path IS NOT NULL AND d.type IS NOT NULL;
