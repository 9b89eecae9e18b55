"""A simulated modality gap: a constant direction of length k is taken from images and added to texts, rows renormalized, s times 1 + k²."""
import method
import tasks
from figures import head, percents, right, row
from pinned import np

direction = method.unit(np.random.RandomState(3).randn(1, 256))[0]
moved = lambda x, by: method.unit(x + by * direction).astype("f4")
memory = tasks.flickr8k()
head("k", "set", "zero-shot", "xmore-kernel", "round trip", "λ_e")
for k in (0, 0.7, 1.0):
    each = {}
    for task in [*(tasks.Task(name, memory) for name in tasks.MAIN), tasks.Task("imagenette160", memory, "in200_0"), *map(tasks.demo_split, range(5))]:
        m, scale = task.memory, tasks.SCALE * (1 + k * k)
        state = method.setup(moved(task.labels, k), method.Memory(moved(m.images, -k), moved(m.captions, k), m.image), scale)
        p = state.answer(moved(task.queries, -k))
        each.setdefault(task.set, []).append([*(100 * right(q, task.y).mean() for q in (method.softmax(state.last["z"]), p)), state.round_trip, getattr(state, "lambda_e", np.nan)])
    for name, found in each.items():
        a, b, trip, scale = np.mean(found, 0)
        row(k, name, *percents([a, b]), *percents([trip, scale], 2))
