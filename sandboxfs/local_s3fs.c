/*
 * s3fs, which mounts a bucket: where it is, what it is told, what it says. Part of the local driver (local.h); no state.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "local.h"

/* --- what it says --- */

void s3fs_words(struct child *s3fs, struct buf *out)
{
	AUTO_BUF said = BUF_INIT;
	child_output(s3fs, &said);
	buf_char(&said, 0);
	if (!buf_error(&said))
		bucket_said(said.data, out);
}

int s3fs_failed(struct call *c, const struct bucket *b, struct child *s3fs, int err)
{
	AUTO_BUF words = BUF_INIT;
	s3fs_words(s3fs, &words);
	return bucket_failed(c, b, words.size ? words.data : "nothing", err);
}

/* --- what it is told --- */

int s3fs_find(const struct local *l, struct call *c, char **program)
{
	*program = local_program("s3fs");
	if (!*program)
		return call_fault(c, ENOTSUP, NULL, "s3fs is not installed; apt-get install s3fs");
	/* Root gives its own a node: spawn.fuse. */
	if (!l->drop && access("/dev/fuse", R_OK | W_OK) < 0)
		return call_fault(c, ENOTSUP, NULL, "/dev/fuse is closed to you: %s", strerror(errno));
	return 0;
}

/* What s3fs is told: new words in argv, NULL-terminated. */
static int s3fs_argv(const struct local *l, const struct bucket *b, struct buf *text, char ***out)
{
	/* Ours first: of two of one name the last holds. */
	static const char *const plain[] = {"allow_other", "uid=0", "gid=0", "connect_timeout=10",
		"readwrite_timeout=60", "retries=3", "stat_cache_expire=5"};
	size_t n = 0, count = 0;
	buf_printf(text, "%s%s%s%c%s%c-f%c", b->bucket, b->prefix ? ":" : "",
		b->prefix ? b->prefix : "", 0, BUCKET_PLACE, 0, 0);
	buf_printf(text, "-o%curl=%s%c-o%cfsname=%s%c", 0, b->endpoint, 0, 0, b->bucket, 0);
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		buf_printf(text, "-o%c%s%c", 0, plain[i], 0);
	if (b->path_style)
		buf_printf(text, "-o%cuse_path_request_style%c", 0, 0);
	if (b->read_only)
		buf_printf(text, "-o%cro%c", 0, 0);
	if (l->options->min_free >> 20)
		buf_printf(text, "-o%censure_diskfree=%llu%c", 0,
			(unsigned long long)l->options->min_free >> 20, 0);
	for (char **o = b->options; o && *o; o++)
		buf_printf(text, "-o%c%s%c", 0, *o, 0);
	if (buf_error(text))
		return -ENOMEM;
	for (size_t i = 0; i < text->size; i++)
		count += text->data[i] == 0;
	char **argv = calloc(count + 1, sizeof *argv);
	if (!argv)
		return -ENOMEM;
	for (size_t i = 0; n < count; i += strlen(text->data + i) + 1)
		argv[n++] = text->data + i;
	*out = argv;
	return 0;
}

int s3fs_start(const struct local *l, struct call *c, const struct bucket *b,
	const struct s3fs_place *at, void (*on_exit)(void *arg), void *arg, struct child **out)
{
	AUTO_FD int args = -1;
	AUTO_BUF text = BUF_INIT;
	AUTO_FREE char **words = NULL;
	const struct box_plan *plan = at->plan;
	int err = memory_file("args", plan->args.data, plan->args.size, &args);
	/* It complains on its standard output. */
	buf_printf(&text, "%s%c--args%c%d%c--%c/bin/sh%c-c%cexec \"$0\" \"$@\" >&2%c%s%c", l->bwrap, 0,
		0, BUCKET_FD_ARGS, 0, 0, 0, 0, 0, at->program, 0);
	if (!err)
		err = s3fs_argv(l, b, &text, &words);
	if (err)
		return err;
	const struct spawn_fd fds[] = {
		{at->users, BUCKET_FD_USERNS}, {args, BUCKET_FD_ARGS}, {at->info, BUCKET_FD_INFO}};
	struct spawn what = {.path = l->bwrap,
		.argv = words,
		.fds = fds,
		.nfds = sizeof fds / sizeof *fds,
		.collect = true,
		.cwd = -1,
		.userns = -1,
		.netns = -1,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid,
		.stage = l->drop ? local_stage() : NULL,
		.mounts = plan->mounts,
		.nmounts = plan->nmounts,
		.fuse = l->drop,
		.on_exit = on_exit,
		.arg = arg};
	const char *stage = "";
	err = spawner_start(l->spawner, &what, out, &stage);
	return err ? call_fault(c, -err, NULL, "bubblewrap could not be started for s3fs (%s): %s",
					 stage, strerror(-err))
			   : 0;
}
