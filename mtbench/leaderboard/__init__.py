"""The leaderboard: submissions that are checked, replayed, and rendered. Every score is computed from records.

:mod:`~mtbench.leaderboard.card` reads what a submitter says, :mod:`~mtbench.leaderboard.submission` checks a folder and
says why it is refused, :mod:`~mtbench.leaderboard.badges` keeps what maintainers have verified, and
:mod:`~mtbench.leaderboard.board` renders the tables.
"""
