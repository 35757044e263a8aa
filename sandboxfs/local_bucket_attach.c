/*
 * The mount of a bucket goes into its sandbox and out again: the side of the driver, which finds the namespaces, starts the children
 * of local_bucket_child.c and says what they could not do. Part of the local driver (local.h). Owns nothing: records and their s3fs are
 * local_bucket.c's, and all but the record's device number is only read here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "local_bucket_impl.h"

int bucket_set_namespaces(const struct bucket_set *s, int *mounts, int *users)
{
	char path[64];
	struct pollfd p = {s->init, POLLIN, 0};
	snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)s->pid);
	AUTO_FD int m = open(path, O_RDONLY | O_CLOEXEC);
	if (m < 0)
		return -errno;
	/* Not ended now: the number was its own then. */
	if (poll(&p, 1, 0) != 0)
		return -ESRCH;
	*users = ioctl(m, NS_GET_USERNS);
	if (*users < 0)
		return -errno;
	*mounts = steal_fd(&m);
	return 0;
}

/* The whole of a file of /proc; one that has gone is empty. */
static int read_file(const char *path, struct buf *out)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	for (ssize_t n = 1; fd >= 0 && n > 0;) {
		char chunk[4096];
		n = read(fd, chunk, sizeof chunk);
		if (n > 0)
			buf_add(out, chunk, (size_t)n);
	}
	buf_char(out, 0);
	return buf_error(out);
}

/* Where a mount is in the lines of a mountinfo: its path as it stands there, in text; NULL: not there. id: "MAJOR:MINOR", or NULL: any; path: or NULL. */
static char *find_mount(char *text, const char *id, const char *path)
{
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *field[5], *word = line;
		size_t n = 0;
		while (n < 5 && word) {
			field[n++] = word;
			word = strchr(word, ' ');
			if (word)
				*word++ = 0;
		}
		if (n == 5 && (!id || strcmp(field[2], id) == 0) && (!path || strcmp(field[4], path) == 0))
			return field[4];
	}
	return NULL;
}

/* A file of /proc cannot be polled for that. */
int record_wait_mounted(struct record *r, struct call *c, pid_t pid, int64_t until, int *mounts)
{
	char info[64], ns[64];
	snprintf(info, sizeof info, "/proc/%d/mountinfo", (int)pid);
	snprintf(ns, sizeof ns, "/proc/%d/ns/mnt", (int)pid);
	for (;;) {
		AUTO_BUF text = BUF_INIT;
		int err = read_file(info, &text);
		if (err)
			return err;
		if (find_mount(text.data, NULL, BUCKET_PLACE)) {
			AUTO_FD int fd = open(ns, O_RDONLY | O_CLOEXEC);
			if (!record_ended(r)) { /* the number was its own */
				*mounts = steal_fd(&fd);
				return *mounts < 0 ? -errno : 0;
			}
		}
		if (record_ended(r))
			return s3fs_failed(c, &r->bucket, r->s3fs, -EIO);
		err = record_go_on(c, r, until);
		if (err)
			return err;
		nanosleep(&(struct timespec){0, LOOK_MS * 1000000}, NULL);
	}
}

static int spawn_body(const struct bucket_set *s, int users, const struct spawn_fd *fds,
	size_t nfds, int (*body)(void *arg), void *arg, struct child **out)
{
	const struct local *l = s->l;
	struct spawn what = {.body = body,
		.body_arg = arg,
		.fds = fds,
		.nfds = nfds,
		.cwd = -1,
		.userns = users,
		.netns = -1,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid};
	return spawner_start(l->spawner, &what, out, NULL);
}

/* \040 and the like of a mountinfo, in place. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *at = text; *at; to++) {
		if (at[0] == '\\' && strspn(at + 1, "01234567") >= 3) {
			*to = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
			at += 4;
		} else {
			*to = *at++;
		}
	}
	*to = 0;
}

/* Where it is now (the sandbox may have renamed what is above it); *path new, NULL: nowhere. */
static int where(const struct record *r, char **path)
{
	char file[64], id[32];
	AUTO_BUF text = BUF_INIT;
	struct pollfd p = {r->set->init, POLLIN, 0};
	snprintf(file, sizeof file, "/proc/%d/mountinfo", (int)r->set->pid);
	snprintf(id, sizeof id, "%u:%u", r->major, r->minor);
	int err = read_file(file, &text);
	*path = NULL;
	if (err || poll(&p, 1, 0) != 0) /* ended: and its mounts with it */
		return err;
	char *found = find_mount(text.data, id, NULL);
	if (!found)
		return 0;
	unescape(found);
	*path = strdup(found);
	return *path ? 0 : -ENOMEM;
}

int record_detach(struct record *r, struct call *c)
{
	AUTO_FREE char *path = NULL;
	AUTO_FD int box = -1;
	AUTO_FD int users = -1;
	struct child *child;
	int status;
	int err = where(r, &path);
	if (err || !path)
		return err;
	err = bucket_set_namespaces(r->set, &box, &users);
	if (err == -ESRCH)
		return 0;
	const struct spawn_fd fds[] = {{box, BUCKET_CHILD_MOUNTS}};
	if (!err)
		err = spawn_body(r->set, users, fds, 1, bucket_detach_body, path, &child);
	if (err)
		return call_fault(
			c, -err, NULL, "the namespaces of the sandbox cannot be joined: %s", strerror(-err));
	err = child_wait(child, call_now_ms() + END_MS, &status);
	if (err)
		child_signal(child, SIGKILL);
	child_put(child);
	if (err || !WIFEXITED(status))
		return err ? err : -EIO;
	err = WEXITSTATUS(status);
	if (err == EBUSY)
		return call_fault(c, EBUSY, NULL, "a program in the sandbox uses %s; end it first", path);
	return err ? call_fault(c, err, NULL, "%s cannot be unmounted: %s", path, strerror(err)) : 0;
}

static int attach_failed(struct call *c, struct record *r, const struct bucket_attached *how)
{
	const char *dir = r->bucket.dir;
	/* What s3fs takes down when the store has refused: before or under the eyes of the child. */
	bool down = how->err == -ENOTCONN || how->err == -ECONNABORTED ||
				(how->step == BUCKET_STEP_TAKE && how->err == -EINVAL);
	switch (down ? BUCKET_STEP_LIST : how->step) {
	case BUCKET_STEP_LIST:
		/* It ends by itself; what it said is complete then. */
		child_wait(r->s3fs, call_now_ms() + (down ? END_MS : 0), NULL);
		return s3fs_failed(c, &r->bucket, r->s3fs, how->err);
	case BUCKET_STEP_DIR:
		if (how->err == -ENOTDIR || how->err == -ELOOP)
			return call_fault(c, ENOTDIR, NULL,
				"%s: a part of it is no directory of the sandbox (links are not followed)", dir);
		return call_fault(
			c, -how->err, NULL, "%s: this directory cannot be made: %s", dir, strerror(-how->err));
	case BUCKET_STEP_FILLED:
		if (how->err == -ENOTEMPTY)
			return call_fault(c, ENOTEMPTY, NULL,
				"%s: there are files, which the bucket would hide; move them, or choose another "
				"directory",
				dir);
		/* fall through */
	default:
		return call_fault(c, -how->err, NULL,
			"%s: this system does not let the mount be moved into the sandbox: %s (it takes Linux "
			"5.12)",
			dir, strerror(-how->err));
	}
}

int record_attach(struct record *r, struct call *c, int users, int mounts, int box, int64_t until)
{
	int result[2];
	if (pipe2(result, O_CLOEXEC) < 0)
		return -errno;
	AUTO_FD int in = result[0];
	AUTO_FD int out = result[1];
	const struct spawn_fd fds[] = {
		{mounts, BUCKET_CHILD_MOUNTS}, {box, BUCKET_CHILD_BOX}, {out, BUCKET_CHILD_RESULT}};
	struct bucket_attach what = {r->bucket.dir, r->bucket.read_only};
	struct bucket_attached how = {.err = -EIO};
	struct child *child;
	int err = spawn_body(r->set, users, fds, 3, bucket_attach_body, &what, &child);
	if (err)
		return call_fault(
			c, -err, NULL, "the namespaces of the sandbox cannot be joined: %s", strerror(-err));
	close(steal_fd(&out));
	for (ssize_t n = -1; !err && n < 0;) {
		struct pollfd p = {in, POLLIN, 0};
		n = poll(&p, 1, LOOK_MS) > 0 ? read(in, &how, sizeof how) : -1;
		if (n >= 0 && n != (ssize_t)sizeof how)
			err = -EIO;
		else if (n < 0)
			err = record_go_on(c, r, until);
	}
	child_signal(child, SIGKILL); /* it has told, or is not to go on */
	/* What it waits for is s3fs's answer: then s3fs is ended, and with it the waiting. */
	if (err)
		child_signal(r->s3fs, SIGKILL);
	child_wait(child, call_now_ms() + END_MS, NULL);
	child_put(child);
	/* Given up, it may yet have done it: then it is to be undone. */
	if (err && read(in, &how, sizeof how) != (ssize_t)sizeof how)
		return err;
	if (!err && how.err)
		return attach_failed(c, r, &how);
	r->major = how.major;
	r->minor = how.minor;
	if (err && !how.err)
		record_detach(r, NULL); /* what fails here ends with the sandbox */
	return err;
}
