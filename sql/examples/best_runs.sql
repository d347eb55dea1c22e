-- The ten finished runs with the best validation accuracy, with their learning rate.
SELECT r.entity, r.project, r.run_id, r.name, s.number AS accuracy, lr.number AS lr
FROM runs AS r
JOIN summary_values AS s ON s.entity = r.entity AND s.project = r.project AND s.run_id = r.run_id AND s.key = 'val/acc'
LEFT JOIN config_values AS lr
    ON lr.entity = r.entity AND lr.project = r.project AND lr.run_id = r.run_id AND lr.key = 'lr'
WHERE r.state = 'finished' AND r.deleted_at IS NULL AND isfinite(s.number)
ORDER BY accuracy DESC, r.run_id
LIMIT 10;
