CREATE OR REPLACE VIEW main.console AS
SELECT r.entity, r.project, r.run_id, c.line, c.logged_at, c.level, c.text,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.console_lines AS c
JOIN store.run_records AS r ON r.rid = c.rid;
