CREATE OR REPLACE VIEW store.leaves AS
SELECT rid, doc, key, kind, number,
       CASE WHEN text IS NULL AND kind = 'number' THEN CAST(number AS VARCHAR) ELSE text END AS text,
       element
FROM store.leaf_rows;
