"""Names of HalfCheetah's states and actions, and its control cost."""

from __future__ import annotations

CONTROL_COST = 0.1
JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")
STATE_NAMES = (
    "x_velocity",
    "root_z",
    "root_angle",
    *(f"{joint}_angle" for joint in JOINTS),
    "root_x_velocity",
    "root_z_velocity",
    "root_angular_velocity",
    *(f"{joint}_angular_velocity" for joint in JOINTS),
)
ACTION_NAMES = tuple(f"{joint}_torque" for joint in JOINTS)
