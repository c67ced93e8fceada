"""Plug-ins that let frameworks of voice agents speak through glowd: Pipecat, LiveKit Agents, RealtimeTTS.

Rules: each file is for one framework and imports it; none is imported by anything here. Neither torch nor the daemon is needed
where they run.
"""
