# The service is neither enabled nor started: it has no addresses yet, and port 53 may be somebody else's.
systemd-sysusers tidegate.conf
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # 2: an upgrade. One that runs is started anew.
    [ "$1" -lt 2 ] || systemctl try-restart tidegate.service
fi
