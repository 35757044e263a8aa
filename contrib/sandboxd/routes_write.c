/*
 * write. A new file appears whole: it is written without a name and then linked. An existing one keeps its inode,
 * mode, links and open readers: room for it is made first, then it is overwritten in place and cut to its
 * length at the end, so that a full disk leaves it as it was. Owns nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "fileop_server.h"
#include "routes.h"
#include "text.h"

/* A pipe or a terminal may take its time: looks every second whether anybody still waits. */
static int write_all(struct request *r, int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EAGAIN) {
			struct pollfd wait = {.fd = fd, .events = POLLOUT};
			if (poll(&wait, 1, HTTP_TICK_MS) == 0 &&
				(client_gone(r->client) || atomic_load(&r->server->stage) != STAGE_SERVING))
				return -EINTR;
			continue;
		}
		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			p += done;
			n -= (size_t)done;
		}
	}
	return 0;
}

/* Overwrites what is there. -ENOENT: nothing is. */
static int write_existing(struct request *r, const char *path, const struct buf *content, int flags)
{
	AUTO_FD int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags, 0644);
	if (fd < 0)
		return -errno;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	off_t size = (off_t)content->size;
	if (S_ISREG(st.st_mode) && size > st.st_size &&
		fallocate(fd, FALLOC_FL_KEEP_SIZE, st.st_size, size - st.st_size) < 0 &&
		errno != EOPNOTSUPP)
		return -errno;
	int err = write_all(r, fd, content->data ? content->data : "", content->size);
	if (!err && S_ISREG(st.st_mode) && ftruncate(fd, size) < 0)
		err = -errno;
	return err;
}

/* Makes the directories above path. 0 or a negative errno. */
static int make_parents(const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		struct stat st;
		if (stat(copy, &st) < 0 && mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return 0;
}

/* -EEXIST: somebody else was faster; -EOPNOTSUPP: the file system has no nameless files. */
static int write_new(struct request *r, const char *path, const struct buf *content)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	if (!dir)
		return -ENOMEM;
	AUTO_FD int fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno == EISDIR || errno == EINVAL ? -EOPNOTSUPP : -errno;
	int err = write_all(r, fd, content->data ? content->data : "", content->size);
	if (err < 0)
		return err;
	char self[64];
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	/* /proc may be closed to a process that cannot be dumped. */
	if (linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH) == 0)
		return 0;
	return errno == EEXIST ? -EEXIST : -EOPNOTSUPP;
}

static int write_file(struct request *r, const char *path, const struct buf *content)
{
	int err = write_existing(r, path, content, 0);
	if (err != -ENOENT)
		return err;
	struct stat st;
	/* A broken symlink: opening it creates what it names. */
	if (lstat(path, &st) == 0)
		return write_existing(r, path, content, O_CREAT);
	err = make_parents(path);
	if (!err)
		err = write_new(r, path, content);
	if (err == -EEXIST || err == -EOPNOTSUPP)
		err = write_existing(r, path, content, O_CREAT);
	return err;
}

static bool in_workspace(const struct server *server, const char *path)
{
	size_t n = strlen(server->workspace);
	return strncmp(path, server->workspace, n) == 0 && (!path[n] || path[n] == '/' || n == 1);
}

/* The content of the request as bytes. False: *out is the answer. */
static bool get_content(
	struct request *r, const char *path, struct buf *bytes, enum MHD_Result *out)
{
	static const char operation[] = "file.write";
	size_t n = 0;
	const char *content = json_text(r->json, "content", &n);
	const char *encoding = json_text(r->json, "encoding", NULL);
	if (!content) {
		*out = reply_error(r, ERR_VALIDATION, path_context(path, operation), operation,
			"Invalid content: it must be a string");
		return false;
	}
	int err = 0;
	if (encoding && strcmp(encoding, "base64") == 0) {
		err = text_unbase64(bytes, content, n);
	} else {
		text_repair(bytes, content, n, true);
		err = buf_error(bytes);
	}
	if (err == -EINVAL)
		*out = reply_error(r, ERR_VALIDATION, path_context(path, operation), operation,
			"Invalid base64 content for '%s'", path);
	else if (err < 0)
		*out = reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
	return !err;
}

enum MHD_Result route_write(struct request *r)
{
	static const char operation[] = "file.write";
	enum MHD_Result result;
	enum session_kind kind;
	const char *session, *given;
	if (!request_json(r, false, &result) || !run_session(r, false, &kind, &session, &result))
		return result;
	AUTO_FREE char *path = request_session_path(r, "path", ERR_VALIDATION, &given, &result);
	if (!path)
		return result;
	AUTO_BUF bytes = BUF_INIT;
	if (!get_content(r, path, &bytes, &result))
		return result;
	int err = 0;
	if (in_workspace(r->server, path))
		err = fileop_server_check_space(r->server->files, bytes.size);
	if (!err)
		err = path[strlen(path) - 1] == '/' ? -EISDIR : write_file(r, path, &bytes);
	if (!err)
		return reply_json(r, 200, path_answer(given));
	AUTO_BUF why = BUF_INIT;
	text_errno(&why, err);
	return reply_filesystem(
		r, path, operation, -1, "%s, open '%s'", why.data ? why.data : "EIO", path);
}
