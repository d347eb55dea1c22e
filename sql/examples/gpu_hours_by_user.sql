-- Hours of runs and of GPUs by user and month. Needs `sync.system_metrics`; a run without system metrics counts as 0 GPU hours.
SELECT r.username, date_trunc('month', r.created_at)::TIMESTAMP AS month, count(*) AS runs,
    sum(r.duration_s) / 3600 AS hours, coalesce(sum(r.duration_s * g.gpus), 0) / 3600 AS gpu_hours
FROM runs AS r
LEFT JOIN (
    SELECT entity, project, run_id, count(DISTINCT key) AS gpus
    FROM system_metrics
    WHERE regexp_matches(key, '^system\.gpu\.\d+\.gpu$')
    GROUP BY entity, project, run_id
) AS g ON g.entity = r.entity AND g.project = r.project AND g.run_id = r.run_id
GROUP BY ALL
ORDER BY month, gpu_hours DESC, r.username;
