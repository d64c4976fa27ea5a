"""Interfaces of fitted agents to other libraries. Importing it registers `persim/Agent-v0` with gymnasium."""

from __future__ import annotations

import gymnasium

AGENT_ID = "persim/Agent-v0"

if AGENT_ID not in gymnasium.registry:
    gymnasium.register(
        AGENT_ID,
        "persim_lightning.interop.gym_env:AgentEnv",
        vector_entry_point="persim_lightning.interop.gym_env:AgentVectorEnv",
    )
