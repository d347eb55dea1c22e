CREATE OR REPLACE VIEW main.summary_values AS
SELECT r.entity, r.project, r.run_id, l.key, l.text AS value, l.number, l.kind,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.leaves AS l
JOIN store.run_records AS r ON r.rid = l.rid
WHERE l.doc = 'summary' AND l.element IS NULL AND (l.kind <> 'object' OR l.text IS NOT NULL);
