CREATE OR REPLACE VIEW main.saved_views AS
SELECT entity, project, view_id, view_type, name, title, description, author, created_at, updated_at, spec, deleted_at
FROM store.view_records
WHERE view_type <> 'runs';
