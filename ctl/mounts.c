/*
 * mounts/: buckets of an object store in the sandbox. new mounts one, NAME tells of it and rm unmounts it.
 *
 * Nothing is kept here: the driver has what is mounted. An object is a description as it was when its name was looked up.
 * Looking asks nobody and starts nothing; a sandbox that does not run has no buckets.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "cleanup.h"
#include "ctl.h"
#include "mount_line.h"

struct mount {
	_Atomic unsigned refs;
	struct bucket bucket; /* constant, as dead */
	char *dead;           /* why nothing answers there any more; NULL: it does */
};

/* --- objects --- */

static void *mount_hold(void *object)
{
	struct mount *m = object;
	atomic_fetch_add(&m->refs, 1);
	return m;
}

static void mount_put(void *object)
{
	struct mount *m = object;
	if (atomic_fetch_sub(&m->refs, 1) != 1)
		return;
	bucket_release(&m->bucket);
	free(m->dead);
	free(m);
}

struct search {
	const char *name;
	struct mount *found;
	int err;
};

static bool look(const struct bucket *b, const char *dead, void *arg)
{
	struct search *s = arg;
	if (strcmp(b->name, s->name) != 0)
		return true;
	struct mount *m = calloc(1, sizeof *m);
	s->err = -ENOMEM;
	if (!m)
		return false;
	atomic_init(&m->refs, 1);
	m->dead = dead ? strdup(dead) : NULL;
	if ((dead && !m->dead) || bucket_copy(&m->bucket, b) < 0) {
		free(m->dead);
		free(m);
		return false;
	}
	s->err = 0;
	s->found = m;
	return false;
}

static int mount_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct search s = {.name = name, .err = -ENOENT};
	(void)c; /* nobody is asked */
	sandbox_bucket_each(dir->sandbox, look, &s);
	if (!s.err)
		*object = s.found;
	return s.err;
}

static bool collect(const struct bucket *b, const char *dead, void *arg)
{
	struct buf *names = arg;
	(void)dead;
	buf_add(names, b->name, strlen(b->name) + 1);
	return true;
}

static int mount_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	AUTO_BUF names = BUF_INIT;
	(void)c;
	sandbox_bucket_each(dir->sandbox, collect, &names);
	if (buf_error(&names))
		return -ENOMEM;
	for (size_t i = 0; i < names.size; i += strlen(names.data + i) + 1)
		if (!cb(names.data + i, arg))
			break;
	return 0;
}

static int mount_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	return sandbox_bucket_unmount(dir->sandbox, c, name);
}

/* --- files --- */

static const char *environment(const char *name)
{
	return getenv(name);
}

static int mount_new(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	struct mount_request q;
	int err = mount_request_parse(c, line, n, &q);
	if (err)
		return err;
	err = mount_request_complete(c, &q, environment);
	if (!err)
		err = sandbox_bucket_mount(ref->sandbox, c, &q.bucket);
	if (!err)
		buf_printf(answer, "%s\n", q.bucket.name);
	mount_request_release(&q);
	return err;
}

static int mount_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	/* What surprises people who take it for a disk. */
	static const char *const limits[] = {
		"an object store by s3fs, not a disk: a file is sent whole when it is closed or synced",
		"a write inside a file, an append, a rename: the whole file is copied",
		"renaming a directory copies every file in it, and is not atomic",
		"no hard links, devices or sockets; locks hold in this sandbox alone",
		"what others change in the bucket is seen within about 5 s; who writes last wins",
		"a file that the store refuses fails when it is closed or synced",
	};
	const struct mount *m = ref->object;
	const struct bucket *b = &m->bucket;
	(void)c; /* nobody is asked */
	buf_printf(out, "bucket %s\ndir %s\nendpoint %s\nprefix %s\nread-only %s\n", b->bucket, b->dir,
		b->endpoint, b->prefix ? b->prefix : "/", b->read_only ? "yes" : "no");
	if (m->dead)
		buf_printf(out, "ended %s; rm this and mount it again\n", m->dead);
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
		buf_printf(out, "limits %s\n", limits[i]);
	return 0;
}

static const struct ctl_row mount_row = {
	.name = "NAME",
	.mode = 0400,
	.kind = CTL_TEXT,
	.grammar = "R bucket dir endpoint prefix read-only limits lines, never credentials; rm "
			   "unmounts it",
	.show = mount_show,
};

static const struct ctl_set mount_objects = {
	.row = &mount_row,
	.find = mount_find,
	.each = mount_each,
	.get = mount_hold,
	.put = mount_put,
	.remove = mount_remove,
};

static const struct ctl_row mount_rows[] = {
	{
		.name = "new",
		.mode = 0666,
		.kind = CTL_CALL,
		.unlisted = true,
		.call = mount_new,
		.grammar =
			"W BUCKET /DIR [ro] [endpoint=URL] [prefix=/P] [provider=r2|s3|gcs] "
			"[credentials=HOSTFILE] [s3fs=OPT]..., or mountBucket's JSON in one line, mounts "
			"it; RW its NAME",
	},
	{.name = NULL},
};

const struct ctl_dir ctl_mounts_dir = {
	.help = "Buckets of an object store, mounted in the sandbox. They end with it.",
	.rows = mount_rows,
	.set = &mount_objects,
};
