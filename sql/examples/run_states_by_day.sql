-- How many runs began on each day, and how they stand now; for a stacked bar chart.
SELECT entity, project, date_trunc('day', created_at)::TIMESTAMP AS day, state, count(*) AS runs
FROM runs
WHERE deleted_at IS NULL
GROUP BY ALL
ORDER BY entity, project, day, state;
