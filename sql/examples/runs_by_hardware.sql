-- The number of runs, machines and hours for each type of GPU.
SELECT
    m.entity, m.project, m.value AS gpu, count(*) AS runs, count(DISTINCT r.host) AS hosts,
    sum(r.duration_s) / 3600 AS hours
FROM run_metadata AS m
JOIN runs AS r ON r.entity = m.entity AND r.project = m.project AND r.run_id = m.run_id
WHERE m.key = 'gpu' AND r.deleted_at IS NULL
GROUP BY m.entity, m.project, m.value
ORDER BY m.entity, m.project, runs DESC, gpu;
