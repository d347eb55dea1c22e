-- Hours of runs and of GPUs by user and month. A run whose metadata names no GPU counts as 0 GPU hours.
SELECT r.username, date_trunc('month', r.created_at)::TIMESTAMP AS month, count(*) AS runs,
    sum(r.duration_s) / 3600 AS hours, coalesce(sum(r.duration_s * m.number), 0) / 3600 AS gpu_hours
FROM runs AS r
LEFT JOIN run_metadata AS m ON m.entity = r.entity AND m.project = r.project AND m.run_id = r.run_id AND m.key = 'gpu_count'
WHERE r.deleted_at IS NULL
GROUP BY ALL
ORDER BY month, gpu_hours DESC, r.username;
