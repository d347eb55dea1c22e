"""Answers for agents: few tools, short and exact answers, over stdio and HTTP by the Model Context Protocol."""
