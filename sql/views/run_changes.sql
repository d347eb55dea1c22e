CREATE OR REPLACE VIEW main.run_changes AS
SELECT entity, project, run_id, seen_at, field, old, new,
       entity || '/' || project || '/' || run_id AS run_path
FROM store.change_records;
