-- The metrics of each run side by side, one row per step; for scatter plots and spreadsheets.
SELECT
    entity, project, run_id, step,
    max(value) FILTER (WHERE key = 'loss') AS loss,
    max(value) FILTER (WHERE key = 'val/acc') AS accuracy,
    make_timestamp(CAST(max(value) FILTER (WHERE key = '_timestamp') * 1000000 AS BIGINT)) AS logged_at
FROM history
JOIN (SELECT entity, project, run_id FROM runs WHERE deleted_at IS NULL) AS r USING (entity, project, run_id)
WHERE key IN ('loss', 'val/acc', '_timestamp')
GROUP BY entity, project, run_id, step
ORDER BY entity, project, run_id, step;
