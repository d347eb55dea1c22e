"""Agents of sweeps: they register, and are given runs by the answers to their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirror.sandbox import instants, jsontext
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.listing import connection
from mirror.sandbox.run import Run
from mirror.sandbox.sweep import Agent, Sweep, next_config
from mirror.sandbox.world import new_run_id

Input = Mapping[str, Any]


def needed_sweep(context: Context, name: str) -> Sweep:
    """Return the sweep with this storage id or name. Raises Refused if there is none."""
    found = (sweep for project in context.world.projects.values() for sweep in project.sweeps.values())
    sweep = next((sweep for sweep in found if name in (sweep.storage_id, sweep.name)), None)
    if sweep is None:
        raise Refused(f"sweep not found: {name}", 404)
    return sweep


def of_sweep(context: Context, sweep: Sweep) -> list[Agent]:
    """Return the agents of a sweep, oldest first."""
    return [agent for agent in context.world.agents.values() if agent.sweep.name == sweep.name]


def _create_agent(context: Context, given: Input) -> dict[str, Any]:
    """Register an agent; a sweep that waited for one runs from then on."""
    world = context.world
    sweep = needed_sweep(context, given["sweep"])
    if sweep.state == "PENDING":
        sweep = world.change_sweep(sweep, state="RUNNING")
    agent = Agent(new_run_id(), sweep, given["host"], world.moment(), world.moment())
    world.agents[agent.storage_id] = agent
    world.changed()
    return {"agent": agent}


def _agent_heartbeat(context: Context, given: Input) -> dict[str, Any]:
    """Answer with the next run of the search, or with the command to exit when it is over or was ended."""
    world = context.world
    agent = world.agents.get(given["id"])
    if agent is None:
        raise Refused(f"agent not found: {given['id']}", 404)
    agent.heartbeat_at = world.moment()
    sweep = needed_sweep(context, agent.sweep.storage_id)
    busy = any(jsontext.read(given.get("runState") or "{}").values())
    commands: list[dict[str, Any]] = []
    if sweep.state not in ("RUNNING", "PENDING"):
        commands = [{"type": "exit"}] if sweep.state != "PAUSED" else []
    elif not busy:
        number = sum(len(other.runs) for other in of_sweep(context, sweep))
        config = next_config(sweep, number)
        if config is None:
            world.change_sweep(sweep, state="FINISHED")
            commands = [{"type": "exit"}]
        else:
            agent.runs.append(new_run_id())
            arguments = {name: {"value": value} for name, value in config.items()}
            commands = [{"type": "run", "run_id": agent.runs[-1], "args": arguments}]
    return {"agent": agent, "commands": jsontext.write(commands)}


def _agent_runs(agent: Agent, context: Context, arguments: Input) -> dict[str, Any]:
    runs = context.world.runs(agent.sweep.entity, agent.sweep.project)
    made: list[Run] = [run for run in runs if run.run_id in agent.runs]
    return connection(made, arguments.get("after"), arguments.get("first"))


def find(sweep: Sweep, context: Context, arguments: Input) -> Agent | None:
    """Return the agent of a sweep with this name or storage id, or None."""
    names = (arguments["agentName"],)
    return next((one for one in of_sweep(context, sweep) if one.agent_id in names or one.storage_id in names), None)


AGENTS: dict[str, Resolver] = {
    "createAgent": lambda _, context, arguments: _create_agent(context, arguments["input"]),
    "agentHeartbeat": lambda _, context, arguments: _agent_heartbeat(context, arguments["input"]),
}

AGENT: dict[str, Resolver] = {
    "id": lambda agent, _, __: agent.storage_id,
    "name": lambda agent, _, __: agent.agent_id,
    "host": lambda agent, _, __: agent.host,
    "state": lambda _, __, ___: "RUNNING",
    "totalRuns": lambda agent, _, __: len(agent.runs),
    "createdAt": lambda agent, _, __: instants.text(agent.created_at),
    "heartbeatAt": lambda agent, _, __: instants.text(agent.heartbeat_at),
    "runs": _agent_runs,
}
