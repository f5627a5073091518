"""The transactions of the task store, one module for each subject, each with its statements beside it.

A statement is a function named after its verb (``select_…``, ``lock_…`` for ``SELECT … FOR UPDATE``, ``update_…``,
``delete_…``, ``insert_…``), with an underscore if only its module uses it. It takes values and returns a SQLAlchemy
statement; it runs nothing. A transaction takes the connection first and runs within one transaction of ``Database``.

All statements mean the same on SQLite and on MySQL ≥ 8.0.1 or MariaDB ≥ 10.6. SQLAlchemy omits ``FOR UPDATE`` on
SQLite, where a writing transaction has the whole database to itself from its first statement on.

=====================  ===================================================================================
``task_operations``    create, read, cancel, retry and delete tasks
``task_filters``       conditions and pages of a task query
``idempotency``        idempotency keys
``queue_stats``        the amount of work that waits and runs
``client_usage``       the tasks and the audio of each client, and the quotas
``claims``             claims of waiting tasks
``task_leases``        leases on tasks, and changes under a lease
``chunk_results``      parts, chunks and results of a run
``completion``         the end of a run: complete, fail, release
``unreadable_tasks``   tasks whose rows this version can't read
``summary_queue``      summaries that are due
``callback_outbox``    callbacks that are due
``due_work``           the choice between clients, for summaries and callbacks
``clock_changes``      rows from before the clock was set back
``task_housekeeping``  deletion of what has expired
``columns``            columns that change together, and conditions
``row_defects``        reports of rows that this version can't read
``recomputable``       the transactions whose commits need not wait for the disk
=====================  ===================================================================================
"""
