-- A file's content is here if what is held of it is what the server lists.
CREATE OR REPLACE VIEW main.files AS
SELECT r.entity, r.project, r.run_id, f.name, f.size, f.mimetype, f.updated_at, f.md5,
       n.digest, (SELECT value FROM store.meta WHERE key = 'blobs') || substr(n.digest, 1, 2) || '/' || substr(n.digest, 3) AS local_path,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.run_files AS f
JOIN store.run_records AS r ON r.rid = f.rid
LEFT JOIN store.content_names AS n
    ON n.kind = 'file' AND n.owner = f.rid AND n.name = f.name AND n.size = f.size
    AND n.md5 IS NOT DISTINCT FROM f.md5
    AND (f.md5 IS NOT NULL OR n.updated_at IS NOT DISTINCT FROM f.updated_at);
