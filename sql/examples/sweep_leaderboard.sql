-- The ten runs of each sweep with the best loss, with their settings.
SELECT r.entity, r.project, r.sweep, rank() OVER (PARTITION BY r.entity, r.project, r.sweep ORDER BY k.min) AS place,
    r.run_id, r.name, r.state, k.min AS best_loss, c.settings
FROM runs AS r
JOIN history_keys AS k ON k.entity = r.entity AND k.project = r.project AND k.run_id = r.run_id AND k.key = 'loss'
LEFT JOIN (
    SELECT entity, project, run_id, string_agg(key || '=' || value, ', ' ORDER BY key) AS settings
    FROM config_values
    WHERE kind IN ('number', 'string', 'bool')
    GROUP BY entity, project, run_id
) AS c ON c.entity = r.entity AND c.project = r.project AND c.run_id = r.run_id
WHERE r.sweep IS NOT NULL AND r.deleted_at IS NULL AND isfinite(k.min)
QUALIFY place <= 10
ORDER BY r.entity, r.project, r.sweep, place, r.run_id;
