CREATE OR REPLACE VIEW main.files AS
SELECT r.entity, r.project, r.run_id, f.name, f.size, f.mimetype, f.updated_at, f.md5,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.run_files AS f
JOIN store.run_records AS r ON r.rid = f.rid;
