-- Runs in the state "running" that sent no heartbeat in the half hour before their project was last synced.
SELECT r.entity, r.project, r.run_id, r.name, r.username, r.host, r.heartbeat_at,
    date_diff('minute', r.heartbeat_at, p.last_success_at) AS minutes_silent
FROM runs AS r
JOIN projects AS p ON p.entity = r.entity AND p.project = r.project
WHERE r.state = 'running' AND r.deleted_at IS NULL AND r.heartbeat_at < p.last_success_at - INTERVAL 30 MINUTE
ORDER BY r.heartbeat_at, r.run_id;
