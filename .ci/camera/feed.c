/* feed DEVICE WIDTH HEIGHT FILE...: a camera that sends JPEG pictures, for v4l2loopback: the files in turn, 30 a second, after one
 * frame of zeros as some cameras send it. */
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

static unsigned char bytes[1 << 20];

int main(int count, char **arguments)
{
    if (count < 5) {
        fprintf(stderr, "usage: feed DEVICE WIDTH HEIGHT FILE...\n");
        return 2;
    }
    int device = open(arguments[1], O_WRONLY);
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    format.fmt.pix.width = atoi(arguments[2]);
    format.fmt.pix.height = atoi(arguments[3]);
    format.fmt.pix.pixelformat = V4L2_PIX_FMT_MJPEG;
    format.fmt.pix.field = V4L2_FIELD_NONE;
    format.fmt.pix.sizeimage = sizeof bytes;
    if (device < 0 || ioctl(device, VIDIOC_S_FMT, &format) < 0 || write(device, bytes, 1000) < 0) {
        perror(arguments[1]);
        return 1;
    }
    for (int next = 4;; next = next + 1 < count ? next + 1 : 4) {
        int file = open(arguments[next], O_RDONLY);
        ssize_t length = read(file, bytes, sizeof bytes);
        close(file);
        if (length <= 0 || write(device, bytes, length) < 0) {
            perror(arguments[next]);
            return 1;
        }
        usleep(33000);
    }
}
