/*
 * The runs of a sandbox: their numbers, which of them are kept, and who holds them. See run.h.
 *
 * The table's lock covers its list, the counts of references and which runs it keeps. What becomes of one run is run.c's.
 */
#include "run_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"

enum { RUNS_KEPT = 16, RUN_STOP_MS = 2000 };

void run_table_put(struct run_table *t)
{
	pthread_mutex_lock(&t->lock);
	bool last = --t->refs == 0;
	pthread_mutex_unlock(&t->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->spool_dir);
	free(t->prefix);
	free(t);
}

/* The user's cache if there is one, for /tmp can be memory. */
char *run_spool_dir(void)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	AUTO_BUF path = BUF_INIT;

	if (cache && cache[0] == '/')
		buf_str(&path, cache);
	else if (home && home[0] == '/')
		buf_printf(&path, "%s/.cache", home);
	else
		return strdup("/tmp");
	if (buf_error(&path) == 0 && mkdir(path.data, 0700) < 0 && errno != EEXIST)
		log_debug("%s: %s", path.data, strerror(errno));
	buf_str(&path, "/sandboxfs");
	if (buf_error(&path))
		return NULL;
	if ((mkdir(path.data, 0700) < 0 && errno != EEXIST) || access(path.data, W_OK | X_OK) < 0) {
		log_info("%s: %s; output of commands is kept in /tmp", path.data, strerror(errno));
		return strdup("/tmp");
	}
	return buf_steal(&path);
}

int run_table_new(struct sandbox *sb, struct run_table **out)
{
	struct run_table *t = calloc(1, sizeof(*t));
	unsigned char random[8];
	AUTO_BUF prefix = BUF_INIT;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->refs = 1;
	t->sb = sb;
	if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
		run_table_put(t);
		return -EIO;
	}
	/* A leading dot: no process can have such an id, for such names are refused. */
	buf_str(&prefix, ".run-");
	for (size_t i = 0; i < sizeof(random); i++)
		buf_printf(&prefix, "%02x", random[i]);
	t->prefix = buf_steal(&prefix);
	t->spool_dir = run_spool_dir();
	if (!t->prefix || !t->spool_dir) {
		run_table_put(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

struct run *run_get(struct run *r)
{
	AUTO_UNLOCK(&r->table->lock);
	r->refs++;
	return r;
}

/* Drops a reference with the table's lock held. True: it was the last, the run is out of the list, and run_free is due. */
static bool run_drop(struct run *r)
{
	struct run_table *t = r->table;

	if (--r->refs > 0)
		return false;
	if (r->prev)
		r->prev->next = r->next;
	else
		t->newest = r->next;
	if (r->next)
		r->next->prev = r->prev;
	return true;
}

void run_put(struct run *r)
{
	struct run_table *t = r->table;

	pthread_mutex_lock(&t->lock);
	bool last = run_drop(r);
	pthread_mutex_unlock(&t->lock);
	if (last)
		run_free(r);
}

/* Lets go of the kept run that began first, if there are too many. Runs that have not ended stay, and do not count. */
static struct run *run_table_surplus(struct run_table *t)
{
	struct run *oldest = NULL;
	unsigned kept = 0;

	for (struct run *r = t->newest; r; r = r->next) {
		if (!r->kept || (!atomic_load(&r->over) && atomic_load(&r->state) < RUN_ENDED))
			continue;
		kept++;
		if (!oldest || r->begun < oldest->begun)
			oldest = r;
	}
	return kept > RUNS_KEPT ? oldest : NULL;
}

void run_table_prune(struct run_table *t)
{
	struct run *r;

	pthread_mutex_lock(&t->lock);
	while ((r = run_table_surplus(t))) {
		r->kept = false;
		if (!run_drop(r))
			continue;
		pthread_mutex_unlock(&t->lock);
		run_free(r);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
}

void run_table_close(struct run_table *t)
{
	int64_t until = call_now_ms() + RUN_STOP_MS; /* for all together: a dead server answers none */
	int64_t end_by = sandbox_end_by(t->sb);
	uint64_t after = 0;

	until = until < end_by ? until : end_by;
	for (;;) {
		struct run *found = NULL;

		pthread_mutex_lock(&t->lock);
		t->closed = true;
		for (struct run *r = t->newest; r && r->number > after; r = r->next)
			found = r;
		if (found) {
			if (!found->kept)
				found->refs++; /* else the table's own is ours now */
			found->kept = false;
			after = found->number;
		}
		pthread_mutex_unlock(&t->lock);
		if (!found)
			break;
		run_abandon(found, until);
		run_put(found);
	}
}

void run_table_free(struct run_table *t)
{
	run_table_close(t);
	run_table_put(t);
}

struct run *run_table_find(struct run_table *t, uint64_t number)
{
	AUTO_UNLOCK(&t->lock);
	for (struct run *r = t->newest; r; r = r->next) {
		if (r->number == number) {
			r->refs++;
			return r;
		}
	}
	return NULL;
}

struct run *run_table_last(struct run_table *t)
{
	struct run *last = NULL;

	AUTO_UNLOCK(&t->lock);
	for (struct run *r = t->newest; r; r = r->next) {
		if (r->begun && (!last || r->begun > last->begun))
			last = r;
	}
	if (last)
		last->refs++;
	return last;
}

void run_table_each(struct run_table *t, bool (*cb)(struct run *r, void *arg), void *arg)
{
	uint64_t after = 0;

	/* One at a time by number: the callback may do what it likes, without our lock. */
	for (;;) {
		struct run *found = NULL;

		pthread_mutex_lock(&t->lock);
		for (struct run *r = t->newest; r && r->number > after; r = r->next)
			found = r;
		if (found)
			found->refs++;
		pthread_mutex_unlock(&t->lock);
		if (!found)
			return;
		after = found->number;
		bool more = cb(found, arg);
		run_put(found);
		if (!more)
			return;
	}
}

int run_new(struct run_table *t, struct run **out)
{
	struct run *r = calloc(1, sizeof(*r));
	AUTO_BUF id = BUF_INIT;
	int err;

	if (!r)
		return -ENOMEM;
	err = spool_new(t->spool_dir, sandbox_options(t->sb)->output_max, &r->spool);
	if (err) {
		free(r);
		return err;
	}
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_lock(&t->lock);
	t->refs++;
	r->table = t;
	r->refs = 1;
	r->number = ++t->last;
	r->next = t->newest;
	if (r->next)
		r->next->prev = r;
	t->newest = r;
	pthread_mutex_unlock(&t->lock);
	buf_printf(&id, "%s-%llu", t->prefix, (unsigned long long)r->number);
	r->id = buf_steal(&id);
	if (!r->id) {
		run_put(r);
		return -ENOMEM;
	}
	*out = r;
	return 0;
}

void run_mark_begun(struct run *r)
{
	struct run_table *t = r->table;

	AUTO_UNLOCK(&t->lock);
	if (r->begun || t->closed)
		return;
	r->begun = ++t->begun;
	r->kept = true;
	r->refs++;
}
