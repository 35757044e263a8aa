/*
 * The tree: what a ctl/ directory remembers between openings. Owns the table of the nodes that stay the same
 * for the kernel, the last answer, late error and time of each request file, which process has which listing open, and
 * the pump of its streams.
 *
 * A sandbox's tree is attached to the sandbox and found again by every mount of its ctl/; it holds no reference to the
 * sandbox (its nodes do), so the two do not keep each other alive. The server's lives as long as its nodes.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"
#include "timed.h"

enum {
	BUCKETS = 128,
	MEMORIES_MAX = 512,       /* files whose last answer is remembered */
	ANSWER_MAX = 1024 * 1024, /* of one answer */
	CLOSING_MS = 100,         /* until a close is here, at most */
	CLOSING_AGAIN_MS = 10
};

struct memory {
	struct memory *next; /* newest first */
	char *path;
	struct timespec when;
	int late; /* negative errno; 0: none */
	struct buf answer;
};

struct ctl_tree {
	_Atomic unsigned references;
	struct ctl_pump *pump;
	struct timespec born;
	pthread_mutex_t lock; /* covers what follows */
	struct ctl_node *kept[BUCKETS];
	struct memory *memories;
	struct ctl_opening *openings;
	pthread_cond_t closed; /* an opening is gone; by the monotonic clock */
};

static void memory_free(struct memory *m)
{
	buf_release(&m->answer);
	free(m->path);
	free(m);
}

static int tree_new(struct ctl_tree **out)
{
	AUTO_FREE struct ctl_tree *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	int err = ctl_pump_new(&t->pump);
	if (err)
		return err;
	atomic_init(&t->references, 1);
	clock_gettime(CLOCK_REALTIME, &t->born);
	pthread_mutex_init(&t->lock, NULL);
	(void)timed_cond_init(&t->closed); /* CLOCK_MONOTONIC is always there */
	*out = steal(t);
	return 0;
}

struct ctl_tree *ctl_tree_get(struct ctl_tree *t)
{
	atomic_fetch_add(&t->references, 1);
	return t;
}

void ctl_tree_put(struct ctl_tree *t)
{
	if (!t || atomic_fetch_sub(&t->references, 1) != 1)
		return;
	ctl_pump_free(t->pump);
	while (t->memories) {
		struct memory *m = t->memories;
		t->memories = m->next;
		memory_free(m);
	}
	pthread_cond_destroy(&t->closed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static void *tree_make(struct sandbox *sb)
{
	struct ctl_tree *t;
	(void)sb; /* no reference is kept: see above */
	return tree_new(&t) ? NULL : t;
}

static void tree_stop(void *data)
{
	struct ctl_tree *t = data;
	ctl_pump_retire(t->pump);
}

static void tree_release(void *data)
{
	ctl_tree_put(data);
}

int ctl_tree_of(struct server *server, struct sandbox *sandbox, struct ctl_tree **out)
{
	static const char key;
	(void)server;
	if (!sandbox)
		return tree_new(out);
	struct ctl_tree *t = sandbox_attach(sandbox, &key, tree_make, tree_stop, tree_release);
	if (!t)
		return -ENOMEM;
	*out = ctl_tree_get(t);
	return 0;
}

struct ctl_pump *ctl_tree_pump(struct ctl_tree *t)
{
	return t->pump;
}

/* --- nodes that stay --- */

static unsigned bucket_of(const char *path)
{
	unsigned h = 5381;
	for (; *path; path++)
		h = h * 33 + (unsigned char)*path;
	return h % BUCKETS;
}

static struct ctl_node *find_locked(struct ctl_tree *t, const char *path, const void *object)
{
	for (struct ctl_node *n = t->kept[bucket_of(path)]; n; n = n->next)
		if (n->ref.object == object && strcmp(n->path, path) == 0 && node_tryget(&n->node))
			return n;
	return NULL;
}

struct ctl_node *ctl_tree_kept(struct ctl_tree *t, const char *path, const void *object)
{
	AUTO_UNLOCK(&t->lock);
	return find_locked(t, path, object);
}

struct ctl_node *ctl_tree_keep(struct ctl_tree *t, struct ctl_node *n)
{
	struct ctl_node *other;
	{
		AUTO_UNLOCK(&t->lock);
		other = find_locked(t, n->path, n->ref.object);
		if (!other) {
			struct ctl_node **bucket = &t->kept[bucket_of(n->path)];
			n->kept = true;
			n->next = *bucket;
			*bucket = n;
			return n;
		}
	}
	node_put(&n->node);
	return other;
}

void ctl_tree_drop(struct ctl_tree *t, struct ctl_node *n)
{
	AUTO_UNLOCK(&t->lock);
	if (!n->kept)
		return;
	for (struct ctl_node **at = &t->kept[bucket_of(n->path)]; *at; at = &(*at)->next) {
		if (*at == n) {
			*at = n->next;
			break;
		}
	}
	n->kept = false;
}

/* --- who has a listing open --- */

void ctl_tree_opened(struct ctl_tree *t, struct ctl_opening *o)
{
	AUTO_UNLOCK(&t->lock);
	o->next = t->openings;
	t->openings = o;
}

void ctl_tree_closed(struct ctl_tree *t, struct ctl_opening *o)
{
	AUTO_UNLOCK(&t->lock);
	for (struct ctl_opening **at = &t->openings; *at; at = &(*at)->next) {
		if (*at == o) {
			*at = o->next;
			break;
		}
	}
	pthread_cond_broadcast(&t->closed);
}

static struct ctl_opening *opening_find(struct ctl_tree *t, uint64_t ino, pid_t process)
{
	struct ctl_opening *o = t->openings;
	while (o && (o->ino != ino || o->process != process))
		o = o->next;
	return o;
}

/*
 * The kernel tells of a close without waiting for the answer, so that what a process does next may be here first: a moment is
 * waited for it, a shorter one where that was in vain before.
 */
bool ctl_tree_is_open(struct ctl_tree *t, uint64_t ino, pid_t process)
{
	AUTO_UNLOCK(&t->lock);
	struct ctl_opening *o = opening_find(t, ino, process);
	if (!o)
		return false;
	int64_t until = call_now_ms() + (o->told ? CLOSING_AGAIN_MS : CLOSING_MS);
	int err = 0;
	while ((o = opening_find(t, ino, process)) && !err)
		err = timed_cond_wait(&t->closed, &t->lock, until);
	if (o)
		o->told = true;
	return o != NULL;
}

/* --- what is remembered of a file --- */

static struct memory *memory_find(struct ctl_tree *t, const char *path)
{
	for (struct memory *m = t->memories; m; m = m->next)
		if (strcmp(m->path, path) == 0)
			return m;
	return NULL;
}

/* The memory of a path, made if need be; the oldest goes when there are too many. NULL: out of memory. */
static struct memory *memory_of(struct ctl_tree *t, const char *path)
{
	struct memory **at = &t->memories;
	for (unsigned n = 0; *at; at = &(*at)->next, n++) {
		struct memory *m = *at;
		if (strcmp(m->path, path) == 0) {
			*at = m->next;
			m->next = t->memories;
			return t->memories = m;
		}
		if (n + 1 >= MEMORIES_MAX) {
			*at = NULL;
			while (m) {
				struct memory *older = m->next;
				memory_free(m);
				m = older;
			}
			break;
		}
	}
	AUTO_FREE struct memory *m = calloc(1, sizeof *m);
	if (!m || !(m->path = strdup(path)))
		return NULL;
	m->when = t->born;
	m->next = t->memories;
	return t->memories = steal(m);
}

void ctl_tree_answered(struct ctl_tree *t, const char *path, const struct buf *answer)
{
	AUTO_UNLOCK(&t->lock);
	struct memory *m = memory_of(t, path);
	if (!m)
		return; /* a time that is not remembered harms nobody */
	clock_gettime(CLOCK_REALTIME, &m->when);
	m->late = 0; /* whoever reads now asks for the answer to the newest */
	if (!answer)
		return;
	buf_clear(&m->answer);
	if (answer->size <= ANSWER_MAX)
		buf_add(&m->answer, answer->data, answer->size);
	if (buf_error(&m->answer))
		buf_release(&m->answer);
}

void ctl_tree_last_answer(struct ctl_tree *t, const char *path, struct buf *out)
{
	AUTO_UNLOCK(&t->lock);
	struct memory *m = memory_find(t, path);
	if (m && m->answer.size)
		buf_add(out, m->answer.data, m->answer.size);
}

struct timespec ctl_tree_time(struct ctl_tree *t, const char *path)
{
	AUTO_UNLOCK(&t->lock);
	struct memory *m = memory_find(t, path);
	return m ? m->when : t->born;
}

void ctl_tree_note_late(struct ctl_tree *t, const char *path, int err)
{
	AUTO_UNLOCK(&t->lock);
	struct memory *m = memory_of(t, path);
	if (m)
		m->late = err;
}

int ctl_tree_take_late(struct ctl_tree *t, const char *path)
{
	AUTO_UNLOCK(&t->lock);
	struct memory *m = memory_find(t, path);
	int err = m ? m->late : 0;
	if (m)
		m->late = 0;
	return err;
}
