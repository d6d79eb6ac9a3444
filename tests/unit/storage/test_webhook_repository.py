"""Which delivery is next: due, oldest, and to nobody who is busy."""

from support.rows import OURS, THEIRS
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.domain.webhooks import Delivery, EventType
from tunery.storage.database import Database
from tunery.storage.tables import tasks


def add(database: Database, delivery_id: str, endpoint_id: str, tenant: Tenant = OURS) -> None:
    delivery = Delivery(delivery_id, endpoint_id, "evt_1", EventType.JOB_FAILED, "{}", 0, 1)
    with database.write() as tx:
        tx.webhooks(tenant).add_delivery(delivery)
        tx.queue.add(tenant, TaskKind.DELIVER_WEBHOOK, delivery_id)


def claim(
    database: Database, projects: tuple[str, ...] = (), endpoints: tuple[str, ...] = ()
) -> tuple[str, str] | None:
    with database.write() as tx:
        queue = tx.deliveries(busy_projects=projects, busy_endpoints=endpoints)
        free = queue.has_free()
        claimed = queue.claim(60)
    assert free is (claimed is not None)
    return None if claimed is None else (claimed[0].subject, claimed[1])


def test_the_oldest_due_delivery_is_claimed_with_its_endpoint(database: Database) -> None:
    add(database, "whd_1", "we_1")
    add(database, "whd_2", "we_2")
    with database.write() as tx:
        tx.queue.add(OURS, TaskKind.TRAIN_JOB, "ftjob-1")
        tx._connection.execute(
            tasks.update().where(tasks.c.subject == "whd_1").values(run_after=4e9)
        )
    assert claim(database) == ("whd_2", "we_2")
    assert claim(database) is None


def test_nothing_is_claimed_for_those_who_are_busy(database: Database) -> None:
    add(database, "whd_1", "we_1")
    add(database, "whd_2", "we_2")
    add(database, "whd_1", "we_1", THEIRS)  # ids are a project's own
    add(database, "whd_4", "we_4", THEIRS)
    busy = (OURS.project_id,)
    assert claim(database, endpoints=("we_1", "we_2", "we_4")) is None
    assert claim(database, busy, ("we_4",)) == ("whd_1", "we_1")
    assert claim(database, (OURS.project_id, THEIRS.project_id)) is None
    assert claim(database, endpoints=("we_1",)) == ("whd_2", "we_2")
    assert claim(database, busy) == ("whd_4", "we_4")
    assert claim(database) == ("whd_1", "we_1")
    assert claim(database) is None


def test_a_task_whose_delivery_is_gone_is_claimed_for_nobody(database: Database) -> None:
    with database.write() as tx:
        tx.queue.add(OURS, TaskKind.DELIVER_WEBHOOK, "whd_gone")
    assert claim(database, endpoints=("we_1",)) == ("whd_gone", "")
