"""The plan: which engine serves a model best on a board, before anything is built.

``structure`` gives the layers of a model without its weights, ``resources`` what an engine costs,
``search`` the best engine within a board's limits, ``report`` the answer for people and as JSON.
"""
