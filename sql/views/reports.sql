CREATE OR REPLACE VIEW main.reports AS
SELECT entity, project, view_id AS report_id, name, title, description, author, created_at, updated_at, spec, url,
       deleted_at
FROM store.view_records
WHERE view_type = 'runs';
