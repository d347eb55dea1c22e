-- How many runs started on each day, by their current state; for a stacked bar chart.
SELECT entity, project, date_trunc('day', created_at)::TIMESTAMP AS day, state, count(*) AS runs
FROM runs
WHERE deleted_at IS NULL
GROUP BY ALL
ORDER BY entity, project, day, state;
