-- Runs of a project with the same config, apart from the seed.
SELECT entity, project, count(*) AS runs, string_agg(run_id, ', ' ORDER BY created_at, run_id) AS run_ids, settings
FROM (SELECT r.entity, r.project, r.run_id, r.created_at, string_agg(c.key || '=' || c.value, ', ' ORDER BY c.key) AS settings
    FROM runs AS r JOIN config_values AS c USING (entity, project, run_id)
    WHERE r.deleted_at IS NULL AND c.kind <> 'object' AND c.key <> 'seed' GROUP BY ALL)
GROUP BY entity, project, settings HAVING count(*) > 1
ORDER BY runs DESC, run_ids;
