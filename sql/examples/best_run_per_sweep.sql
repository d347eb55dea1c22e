-- The best run of each sweep, by the sweep's own metric in the summaries of its runs.
SELECT s.entity, s.project, s.sweep_id AS sweep, s.metric, r.run_id, r.name, v.number AS best, s.runs
FROM sweeps AS s
JOIN runs AS r ON r.entity = s.entity AND r.project = s.project AND r.run_id = s.best_run
JOIN summary_values AS v
    ON v.entity = s.entity AND v.project = s.project AND v.run_id = s.best_run AND v.key = s.metric
WHERE s.deleted_at IS NULL
ORDER BY s.entity, s.project, s.sweep_id;
