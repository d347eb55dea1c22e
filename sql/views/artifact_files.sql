-- A file's content is here if what is held of it is what the manifest lists.
CREATE OR REPLACE VIEW main.artifact_files AS
SELECT a.entity, a.project, a.collection, 'v' || a.version_number AS version, f.path, f.size, f.md5, f.reference,
       n.digest, (SELECT value FROM store.meta WHERE key = 'blobs') || substr(n.digest, 1, 2) || '/' || substr(n.digest, 3) AS local_path
FROM store.artifact_entries AS f
JOIN store.artifact_records AS a ON a.aid = f.aid
LEFT JOIN store.content_names AS n
    ON n.kind = 'artifact' AND n.owner = f.aid AND n.name = f.path AND n.size = f.size
    AND n.md5 IS NOT DISTINCT FROM f.md5;
