/*
 * Doubles of the rooms that the tables of the control tree name and its tests do not enter: git, events, workspace.tar, and the
 * directories of files, processes, ports, ws, pty, backups, mounts and code. Own nothing.
 */
#include <errno.h>

#include "backups.h"
#include "code_room.h"
#include "ctl.h"
#include "events.h"
#include "git.h"
#include "processes.h"
#include "tree.h"
#include "workspace_tar.h"

const struct ctl_dir ctl_backups_dir = {.help = "backups"};
const struct ctl_dir ctl_code_dir = {.help = "code"};
const struct ctl_dir ctl_mounts_dir = {.help = "mounts"};
const struct ctl_dir ctl_ports_dir = {.help = "ports"};
const struct ctl_dir ctl_processes_dir = {.help = "processes"};
const struct ctl_dir ctl_pty_dir = {.help = "pty"};
const struct ctl_dir ctl_ws_dir = {.help = "ws"};
const struct ctl_stream_ops workspace_tar_stream;
const struct ctl_upload_ops workspace_tar_upload;
const struct ctl_stream_ops events_stream_ops;
const struct ctl_talk_ops events_talk_ops;
const struct ctl_talk_ops git_talk_ops;

int git_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	(void)ref;
	(void)c;
	(void)line;
	(void)n;
	(void)answer;
	return -ENOTSUP;
}

int git_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)ref;
	(void)c;
	(void)out;
	return 0;
}

void ctl_code_cancel(struct sandbox *sb)
{
	(void)sb;
}

int tree_node(struct sandbox *sb, enum tree_root which, struct node **out)
{
	(void)sb;
	(void)which;
	(void)out;
	return -ENOENT;
}

int process_submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	(void)ref;
	(void)c;
	(void)text;
	(void)n;
	(void)answer;
	return 0;
}
