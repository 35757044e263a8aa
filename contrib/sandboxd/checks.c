/* See checks.h. A watch that nobody asked for in ten minutes is given up; its next version says so. */
#include "checks.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "server.h"
#include "text.h"

enum { KEEP_MS = 600000, CHECKS_MAX = 64 };

struct kept {
	char *key, *id;
	struct watcher *watcher;
	uint64_t version;
	int64_t used;
};

struct check_table {
	struct server *server;
	atomic_uint ids;
	pthread_mutex_t lock; /* covers the rest */
	struct kept kept[CHECKS_MAX];
	size_t count;
};

int checks_new(struct server *server, struct check_table **out)
{
	struct check_table *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->server = server;
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return 0;
}

static void kept_drop(struct check_table *t, size_t i)
{
	struct kept *k = &t->kept[i];
	free(k->key);
	free(k->id);
	watcher_free(k->watcher);
	*k = t->kept[--t->count];
}

void checks_free(struct check_table *t)
{
	while (t->count)
		kept_drop(t, t->count - 1);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

char *checks_id(struct check_table *t)
{
	char *id;
	unsigned n = atomic_fetch_add(&t->ids, 1) + 1;
	return asprintf(&id, "watch-%u-%" PRId64, n, text_now_ms()) < 0 ? NULL : id;
}

/* "watch-N-MS:VERSION" in its parts. */
static bool parse_version(const char *s, int64_t *made, uint64_t *version, size_t *id_size)
{
	unsigned n;
	int colon = 0, end = 0;
	if (sscanf(s, "watch-%u-%" SCNd64 "%n:%" SCNu64 "%n", &n, made, &colon, version, &end) != 3)
		return false;
	*id_size = (size_t)colon;
	return end && !s[end];
}

bool checks_is_version(const char *s)
{
	int64_t made;
	uint64_t version;
	size_t n;
	return parse_version(s, &made, &version, &n);
}

/* What the watch is of, in one string. */
static char *make_key(const struct watch_spec *spec)
{
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "%s\n%d %u", spec->root, spec->recursive, spec->types);
	for (char **s = spec->include; s && *s; s++)
		buf_printf(&b, "\n+%s", *s);
	for (char **s = spec->exclude; s && *s; s++)
		buf_printf(&b, "\n-%s", *s);
	return buf_steal(&b);
}

static void no_sink(void *arg, enum watch_type type, const char *relative, bool directory)
{
	(void)arg;
	(void)type;
	(void)relative;
	(void)directory;
}

static void drop_old(struct check_table *t, int64_t now)
{
	size_t oldest = 0;
	for (size_t i = 0; i < t->count;) {
		if (now - t->kept[i].used > KEEP_MS) {
			kept_drop(t, i);
			continue;
		}
		i++;
	}
	if (t->count < CHECKS_MAX)
		return;
	for (size_t i = 1; i < t->count; i++)
		if (t->kept[i].used < t->kept[oldest].used)
			oldest = i;
	kept_drop(t, oldest);
}

/* The kept watch of this key, or a new one. Takes key and spec's content. */
static int find_or_make(
	struct check_table *t, char *key, struct watch_spec *spec, struct kept **out)
{
	int64_t now = text_monotonic_ms();
	for (size_t i = 0; i < t->count; i++)
		if (strcmp(t->kept[i].key, key) == 0 && now - t->kept[i].used <= KEEP_MS) {
			free(key);
			watch_spec_release(spec);
			*out = &t->kept[i];
			return 0;
		}
	drop_old(t, now);
	struct kept k = {.key = key, .id = checks_id(t)};
	int err = watcher_new(spec, &k.watcher);
	if (!err && !k.id)
		err = -ENOMEM;
	if (err < 0) {
		watcher_free(k.watcher);
		free(k.key);
		free(k.id);
		return err;
	}
	t->kept[t->count] = k;
	*out = &t->kept[t->count++];
	return 0;
}

static void compare(
	struct check_table *t, const struct kept *k, const char *since, struct check *out)
{
	int64_t made = 0;
	uint64_t version = 0;
	size_t n = 0;
	out->status = "unchanged";
	out->reason = NULL;
	if (!since || !parse_version(since, &made, &version, &n))
		return;
	if (strlen(k->id) == n && strncmp(k->id, since, n) == 0) {
		out->status = version == k->version ? "unchanged" : "changed";
		return;
	}
	out->status = "resync";
	out->reason = made < t->server->started_ms ? "restarted" : "expired";
}

int checks_look(
	struct check_table *t, struct watch_spec *spec, const char *since, struct check *out)
{
	char *key = make_key(spec);
	if (!key) {
		watch_spec_release(spec);
		return -ENOMEM;
	}
	AUTO_UNLOCK(&t->lock);
	struct kept *k;
	int err = find_or_make(t, key, spec, &k);
	if (err < 0)
		return err;
	long n = watcher_read(k->watcher, no_sink, NULL);
	k->used = text_monotonic_ms();
	if (n > 0)
		k->version += (uint64_t)n;
	else if (n < 0)
		k->version++; /* some were lost, or the root is gone: in any case a change */
	compare(t, k, since, out);
	if (asprintf(&out->version, "%s:%" PRIu64, k->id, k->version) < 0)
		return -ENOMEM;
	/* A watch whose root went away sees nothing more: the next check starts anew. */
	if (n < 0 && n != -EOVERFLOW)
		kept_drop(t, (size_t)(k - t->kept));
	return 0;
}
