-- The ten runs of each sweep with the best value that they logged of the sweep's metric (loss, for a sweep without one),
-- with their settings.
SELECT r.entity, r.project, r.sweep,
    rank() OVER (
        PARTITION BY r.entity, r.project, r.sweep ORDER BY CASE s.goal WHEN 'maximize' THEN -k.max ELSE k.min END
    ) AS place,
    r.run_id, r.name, r.state, k.key AS metric, CASE s.goal WHEN 'maximize' THEN k.max ELSE k.min END AS best, c.settings
FROM runs AS r
LEFT JOIN sweeps AS s ON s.entity = r.entity AND s.project = r.project AND s.sweep_id = r.sweep
JOIN history_keys AS k
    ON k.entity = r.entity AND k.project = r.project AND k.run_id = r.run_id AND k.key = coalesce(s.metric, 'loss')
LEFT JOIN (
    SELECT entity, project, run_id, string_agg(key || '=' || value, ', ' ORDER BY key) AS settings
    FROM config_values
    WHERE kind IN ('number', 'string', 'bool')
    GROUP BY entity, project, run_id
) AS c ON c.entity = r.entity AND c.project = r.project AND c.run_id = r.run_id
WHERE r.sweep IS NOT NULL AND r.deleted_at IS NULL AND isfinite(k.min)
QUALIFY place <= 10
ORDER BY r.entity, r.project, r.sweep, place, r.run_id;
