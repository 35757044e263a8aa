/*
 * Which names a directory does not have. Before it makes a name the kernel looks it up, and over a slow link that is a round trip for
 * nothing: what a listing of the last second did not have, and nobody has made here since, is missing. It looks up the name that a rename
 * is to replace as well, however well it knows it: that is answered with what it was told.
 *
 * So a name that the sandbox makes is seen a second after the listing at the latest, as it is with one that it removes. Over a link that is
 * quick each is asked for. Owns the lists of hashes of the nodes, under tree.lock.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "tree_impl.h"

enum { MISSING_MOST = 20000 }; /* names of a directory: a list is moved when one is made */

static uint64_t hash(const char *name)
{
	return tree_mix(node_hash(NODE_HASH_BEGIN, name));
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void tree_missing_begin(struct wnode *dir, struct missing *m)
{
	AUTO_UNLOCK(&dir->tree->lock);

	*m = (struct missing){
		.made = dir->made, .age = dir->tree->age, .until_ms = call_now_ms() + CACHE_MS};
}

void tree_missing_add(struct missing *m, const char *name)
{
	if (m->count == m->size) {
		size_t size = m->size ? m->size * 2 : 64;
		uint64_t *more =
			m->count < MISSING_MOST ? reallocarray(m->hashes, size, sizeof *more) : NULL;

		m->failed |= !more;
		if (!more)
			return;
		m->hashes = more;
		m->size = size;
	}
	m->hashes[m->count++] = hash(name);
}

void tree_missing_know(struct wnode *dir, struct missing *m)
{
	uint64_t *old = NULL;

	if (m->failed || !batch_client_slow(dir->tree->client))
		return;
	if (m->count)
		qsort(m->hashes, m->count, sizeof *m->hashes, compare);
	pthread_mutex_lock(&dir->tree->lock);
	/* A name that was made while the answer was on its way may not be in it. */
	if (m->made == dir->made) {
		old = dir->listed;
		dir->listed = steal(m->hashes);
		dir->listed_count = m->count;
		dir->listed_size = m->size;
		dir->listed_age = m->age;
		dir->listed_until_ms = m->until_ms;
	}
	pthread_mutex_unlock(&dir->tree->lock);
	free(old);
}

void tree_missing_drop(struct missing *m)
{
	free(m->hashes);
	m->hashes = NULL;
}

/* Lock held: where it is in the list, or would be. */
static size_t place(const struct wnode *dir, uint64_t h)
{
	size_t from = 0, to = dir->listed_count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (dir->listed[middle] < h)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static bool is_at(const struct wnode *dir, size_t at, uint64_t h)
{
	return at < dir->listed_count && dir->listed[at] == h;
}

bool tree_is_missing(struct wnode *dir, const char *name)
{
	uint64_t h = hash(name);
	AUTO_UNLOCK(&dir->tree->lock);

	return dir->listed_until_ms > call_now_ms() && dir->listed_age == dir->tree->age &&
		   !is_at(dir, place(dir, h), h);
}

void tree_missing_note(struct wnode *dir, const char *name, bool there)
{
	uint64_t h = hash(name);
	size_t at = place(dir, h);
	bool was = is_at(dir, at, h);

	dir->made += there;
	if (there && !was) {
		if (dir->listed_count == dir->listed_size) {
			size_t size = dir->listed_size ? dir->listed_size * 2 : 64;
			uint64_t *more = reallocarray(dir->listed, size, sizeof *more);

			if (!more) {
				dir->listed_until_ms = 0;
				return;
			}
			dir->listed = more;
			dir->listed_size = size;
		}
		memmove(
			dir->listed + at + 1, dir->listed + at, (dir->listed_count - at) * sizeof *dir->listed);
		dir->listed[at] = h;
		dir->listed_count++;
	} else if (!there && was) {
		memmove(dir->listed + at, dir->listed + at + 1,
			(--dir->listed_count - at) * sizeof *dir->listed);
	}
}

/* With tree.lock held: for how many milliseconds more its attributes are known. */
static int64_t known_for(const struct wnode *n)
{
	int64_t left = n->granted_until_ms - call_now_ms();

	return n->granted_age == n->tree->age && !n->in_dirty && left > 0 ? left : 0;
}

void tree_forget_attr(struct wnode *n)
{
	AUTO_UNLOCK(&n->tree->lock);
	n->touched++;
	n->granted_age = n->tree->age - 1;
}

void tree_touch_begin(struct wnode *dir, struct batch *b, unsigned long *touch)
{
	struct fileop_target target = {.dev = dir->dev, .ino = dir->ino};
	AUTO_BUF path = BUF_INIT;

	tree_forget_attr(dir);
	*touch = 0;
	if (!batch_client_slow(dir->tree->client) || tree_path(dir, 0, &path) < 0)
		return;
	if (dir->root_path)
		target.dev = target.ino = 0;
	target.path = path.data;
	fileop_put_target(batch_add(b, FILEOP_GETATTR, 0), &target);
	AUTO_UNLOCK(&dir->tree->lock);
	*touch = dir->touched;
}

void tree_touch_end(struct wnode *dir, struct batch *b, unsigned long touch)
{
	struct fileop_attr a;
	struct reader body;
	bool alone;

	if (!touch || batch_next(b, &body) || fileop_get_attr(&body, &a))
		return;
	pthread_mutex_lock(&dir->tree->lock);
	alone = touch == dir->touched;
	pthread_mutex_unlock(&dir->tree->lock);
	if (alone) {
		tree_note_attr(dir, &a);
		tree_note_granted(dir);
	} else {
		tree_forget_attr(dir);
	}
}

bool tree_known_dir(struct wnode *dir, struct fileop_attr *a, double *seconds)
{
	if (dir->type != S_IFDIR || !batch_client_slow(dir->tree->client))
		return false;
	pthread_mutex_lock(&dir->tree->lock);
	*seconds = (double)known_for(dir) / 1000;
	pthread_mutex_unlock(&dir->tree->lock);
	AUTO_UNLOCK(&dir->lock);
	*a = dir->attr;
	return dir->has_attr && *seconds > 0;
}

struct wnode *tree_known_child(
	struct wnode *dir, const char *name, struct fileop_attr *a, double *seconds)
{
	struct tree *t = dir->tree;
	int64_t left;
	struct wnode *n = NULL;
	bool good;

	if (!batch_client_slow(t->client))
		return NULL;
	pthread_mutex_lock(&t->lock);
	struct dentry *d = *tree_dentry_find(t, dir, name);
	if (d && d->known_age == t->age) {
		left = d->known_until_ms - call_now_ms();
		if (left > known_for(d->node))
			left = known_for(d->node);
		*seconds = (double)left / 1000;
		n = left > 0 && node_tryget(&d->node->node) ? d->node : NULL;
	}
	pthread_mutex_unlock(&t->lock);
	if (!n)
		return NULL;
	pthread_mutex_lock(&n->lock);
	*a = n->attr;
	good = n->has_attr && !n->buffer_used && (n->type == S_IFREG || n->type == S_IFDIR);
	pthread_mutex_unlock(&n->lock);
	if (good)
		return n;
	node_put(&n->node);
	return NULL;
}
