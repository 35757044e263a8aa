/*
 * The doubles of runs in ctl_fakes.h: a table, and runs whose output and end the test makes. One lock covers all of them; under it
 * are only the locks of the calls that wait.
 */
#include "ctl_fakes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl_fakes_impl.h"

enum { RUNS_MAX = 64, WAITERS_MAX = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct run {
	struct run_table *table;
	int references;
	uint64_t number, begun;
	enum run_state state;
	_Atomic bool over;
	bool cancelled, timed_out;
	int code;
	char *command, *cwd;
	char *env[16];
	char *input;
	size_t input_size;
	int64_t timeout_ms;
	struct timespec started, ended;
	struct fault fault;
	struct spool *spool;
};

struct run_table {
	struct run *runs[RUNS_MAX];
	unsigned count;
	uint64_t last, begun;
};

static struct run_table *table; /* the newest */
static struct run *started[RUNS_MAX];
static unsigned started_count;
static struct call *waiters[WAITERS_MAX];
_Atomic int fake_start_err;

int run_table_new(struct sandbox *sb, struct run_table **out)
{
	(void)sb;
	*out = calloc(1, sizeof **out);
	started_count = 0;
	table = *out;
	return 0;
}

static void run_unref(struct run *r) /* with lock */
{
	if (--r->references)
		return;
	for (unsigned i = 0; i < r->table->count; i++)
		if (r->table->runs[i] == r)
			r->table->runs[i] = r->table->runs[--r->table->count];
	spool_put(r->spool);
	for (int i = 0; i < 16; i++)
		free(r->env[i]);
	free(r->command);
	free(r->cwd);
	free(r->input);
	fault_clear(&r->fault);
	free(r);
}

void run_table_close(struct run_table *t)
{
	(void)t; /* nothing runs in a fake */
}

void run_table_free(struct run_table *t)
{
	for (unsigned i = 0; i < t->count;) {
		unsigned before = t->count;
		run_unref(t->runs[i]); /* the table's own, of those that began */
		if (t->count == before)
			i++;
	}
	free(t);
}

struct run *run_get(struct run *r)
{
	AUTO_UNLOCK(&lock);
	r->references++;
	return r;
}

void run_put(struct run *r)
{
	AUTO_UNLOCK(&lock);
	run_unref(r);
}

struct run *run_table_find(struct run_table *t, uint64_t number)
{
	AUTO_UNLOCK(&lock);
	for (unsigned i = 0; i < t->count; i++)
		if (t->runs[i]->number == number) {
			t->runs[i]->references++;
			return t->runs[i];
		}
	return NULL;
}

struct run *run_table_last(struct run_table *t)
{
	AUTO_UNLOCK(&lock);
	struct run *last = NULL;
	for (unsigned i = 0; i < t->count; i++)
		if (t->runs[i]->begun && (!last || t->runs[i]->begun > last->begun))
			last = t->runs[i];
	if (last)
		last->references++;
	return last;
}

void run_table_each(struct run_table *t, bool (*cb)(struct run *r, void *arg), void *arg)
{
	for (unsigned i = 0; i < t->count; i++)
		if (!cb(t->runs[i], arg))
			return;
}

int run_new(struct run_table *t, struct run **out)
{
	struct run *r = calloc(1, sizeof *r);
	if (spool_new("/tmp", 1 << 20, &r->spool))
		abort();
	AUTO_UNLOCK(&lock);
	r->table = t;
	r->references = 1;
	r->number = ++t->last;
	t->runs[t->count++] = r;
	*out = r;
	return 0;
}

void run_mark_begun(struct run *r)
{
	AUTO_UNLOCK(&lock);
	if (r->begun)
		return;
	r->begun = ++r->table->begun;
	r->references++;
}

int run_start(struct run *r, struct call *c, const struct run_spec *spec)
{
	AUTO_UNLOCK(&lock);
	int err = fake_start_err;
	if (r->cancelled || r->over) {
		r->over = true;
		r->state = RUN_REFUSED;
		return -EINTR;
	}
	fake_start_err = 0;
	if (err)
		r->state = RUN_REFUSED;
	if (err)
		return call_fault(c, -err, NULL, "the command cannot be started");
	r->state = RUN_RUNNING;
	r->command = strndup(spec->command, spec->size);
	r->cwd = spec->cwd ? strdup(spec->cwd) : NULL;
	for (int i = 0; spec->env && spec->env[i] && i < 16; i++)
		r->env[i] = strdup(spec->env[i]);
	r->input = malloc(spec->input_size + 1);
	if (spec->input_size)
		memcpy(r->input, spec->input, spec->input_size);
	r->input_size = spec->input_size;
	r->timeout_ms = spec->timeout_ms;
	clock_gettime(CLOCK_REALTIME, &r->started);
	started[started_count++] = r;
	pthread_cond_broadcast(&changed);
	return 0;
}

static bool is_over(void *arg)
{
	return ((struct run *)arg)->over;
}

int run_wait(struct run *r, struct call *c)
{
	int at = 0;
	{
		AUTO_UNLOCK(&lock);
		while (waiters[at])
			at++;
		waiters[at] = c;
	}
	int err = call_wait(c, is_over, r, -1);
	AUTO_UNLOCK(&lock);
	waiters[at] = NULL;
	if (!err && r->state == RUN_UNKNOWN) {
		err = -r->fault.err;
		fault_copy(&c->fault, &r->fault);
	}
	return err;
}

static void over(struct run *r)
{
	{
		AUTO_UNLOCK(&lock);
		r->ended = r->started; /* however long the test took */
		r->ended.tv_sec += 2;
		r->over = true;
		for (int i = 0; i < WAITERS_MAX; i++)
			if (waiters[i])
				call_wake(waiters[i]);
		pthread_cond_broadcast(&changed);
	}
	spool_end(r->spool);
}

void run_cancel(struct run *r)
{
	AUTO_UNLOCK(&lock);
	r->cancelled = true;
	pthread_cond_broadcast(&changed);
}

enum run_state run_state(struct run *r)
{
	AUTO_UNLOCK(&lock);
	return r->state;
}

bool run_has_begun(struct run *r)
{
	enum run_state state = run_state(r);
	return state != RUN_RESERVED && state != RUN_REFUSED;
}

uint64_t run_number(const struct run *r)
{
	return r->number;
}

int run_exit(struct run *r, bool *timed_out)
{
	AUTO_UNLOCK(&lock);
	if (timed_out)
		*timed_out = r->timed_out;
	return r->code;
}

int64_t fake_run_timeout_ms(struct run *r)
{
	return r->timeout_ms;
}

const char *run_command(struct run *r)
{
	AUTO_UNLOCK(&lock);
	return r->command ? r->command : "";
}

void run_times(struct run *r, struct timespec *from, struct timespec *to)
{
	AUTO_UNLOCK(&lock);
	*from = r->started;
	*to = r->ended;
}

struct spool *run_spool(struct run *r)
{
	return r->spool;
}

void run_fault(struct run *r, struct fault *copy)
{
	AUTO_UNLOCK(&lock);
	fault_copy(copy, &r->fault);
}

struct run *fake_started(unsigned nth)
{
	AUTO_UNLOCK(&lock);
	while (started_count <= nth)
		if (!fake_wait(&changed, &lock))
			return NULL;
	return started[nth];
}

const char *fake_run_cwd(struct run *r)
{
	return r->cwd;
}

const char *fake_run_env(struct run *r, unsigned i)
{
	return r->env[i];
}

const void *fake_run_input(struct run *r, size_t *n)
{
	*n = r->input_size;
	return r->input;
}

void fake_run_print(struct run *r, int stream, const char *text, size_t n)
{
	if (spool_append(r->spool, stream == 2 ? SPOOL_STDERR : SPOOL_STDOUT, text, n))
		abort();
}

void fake_run_end(struct run *r, int code, bool timed_out)
{
	pthread_mutex_lock(&lock);
	r->state = RUN_ENDED;
	r->code = code;
	r->timed_out = timed_out;
	pthread_mutex_unlock(&lock);
	over(r);
}

void fake_run_lose(struct run *r, int err)
{
	pthread_mutex_lock(&lock);
	r->state = RUN_UNKNOWN;
	r->fault.err = err;
	r->fault.message = strdup("the link broke while it ran");
	pthread_mutex_unlock(&lock);
	over(r);
}

bool fake_run_cancelled(struct run *r)
{
	AUTO_UNLOCK(&lock);
	while (!r->cancelled)
		if (!fake_wait(&changed, &lock))
			return false;
	return true;
}

bool fake_run_over(struct run *r)
{
	return r->over;
}

struct run *fake_last_run(void)
{
	struct run *r = run_table_last(table);
	if (r)
		run_put(r);
	return r;
}
